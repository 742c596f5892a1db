"""The one entrance: from two checkpoints to the barrier between them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..alignment import Alignment
from ..alignment import align as align_to
from ..architecture import Architecture, trace
from ..errors import MetanetError
from ..evaluation import (
    Metric,
    Runner,
    batch_inputs,
    check_values,
    find_loss,
    find_metrics,
    fit_to,
    measure,
    repeatable,
)
from ._curve import Barrier
from ._path import StraightPath
from ._statistics import STATISTICS, normalisers, reset_statistics

Weights = nn.Module | Mapping[str, Tensor]


def barrier(
    a: Weights, b: Weights, *, model: nn.Module, data: Iterable[Any],
    loss: str | Callable[[Any, Any], Tensor] | None = None, points: int = 25, align: Alignment | str | None = None,
    arch: Architecture | None = None, statistics: str = "keep", train_data: Iterable[Any] | None = None,
    metrics: Sequence[str] | None = None, seed: int = 0, device: str | torch.device | None = None,
    progress: bool = False, **options: Any,
) -> Barrier:  # fmt: skip
    r"""Loss and accuracy along the straight path :math:`(1 - \lambda) a + \lambda b` between two networks.

    Linear mode connectivity (Frankle et al. 2020, https://arxiv.org/abs/1912.05671); the barrier is the maximum over
    :math:`\lambda` of the loss minus the linear interpolation of the losses at the ends. The network runs in eval mode.
    Weights and floating buffers are interpolated in float32 or wider, integer buffers are those of ``a``, tied tensors
    stay tied. One network is in memory beside ``a`` and ``b``, and all data is read once for every point.

    >>> import metanet, torch
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]          # so that the loss is the square of the weight
    >>> ends = [{"weight": torch.tensor([[w]])} for w in (-1.0, 1.0)]
    >>> curve = metanet.barrier(*ends, model=net, data=data, points=3)
    >>> curve.loss, curve.barrier
    ((1.0, 0.0, 1.0), 0.0)

    Args:
        a, b: modules or state dicts, lazy checkpoints too.
        model: the network that the weights belong to; it is copied, not changed.
        data: batches ``(inputs, target)`` or dicts of keyword inputs, readable again and again (no generator).
        loss: a name of :data:`metanet.evaluation.LOSSES` or ``loss(outputs, target)``, the mean over a batch. Left out:
            the network's own loss where it returns one (transformers, given ``labels``), else cross-entropy for
            classes and squared error for numbers.
        points: how many, both ends counted.
        align: move ``b`` onto ``a`` first, by a matcher's name or an alignment; the path without it is measured too.
        arch: what :func:`metanet.trace` returned, for a matcher; traced from the first batch when left out.
        statistics: of BatchNorm between the ends: ``"keep"`` interpolates them, ``"reset"`` measures them anew at each
            point, as averages over ``train_data``.
        train_data: batches that the matcher and the statistics are given, so that the barrier is measured on others;
            ``data`` when left out.
        metrics: names of :data:`metanet.evaluation.METRICS`; those that fit the targets when left out.
        seed: of the matcher.
        device: where to run; the CPU when left out.
        progress: show a bar.
        options: of the matcher.

    Raises:
        CheckpointError: a checkpoint does not fit the network, or has NaN or infinite values.
        MetanetError: no such loss, metric, matcher or statistics; data that is empty, can be read once only, or does
            not fit the network.
    """
    wanted, function, run = find_metrics(metrics), find_loss(loss), Runner(torch.device(device or "cpu"))
    _check_call(model, points, statistics, align, options)
    data = repeatable(data)
    train_data = data if train_data is None else repeatable(train_data)
    first, second = fit_to(model, a, "a"), fit_to(model, b, "b")
    check_values(model, first)
    check_values(model, second)
    if isinstance(align, str):
        arch = arch or _traced(model, data)
        align = align_to(
            second, to=first, arch=arch, method=align, seed=seed, model=model, data=train_data,
            loss=None if loss is None else function, device=device, **options,
        )  # fmt: skip
    elif align is not None:
        _check_alignment(align, second)
    ends = [second] if align is None else [second, align(second)]
    found = []
    with _bar(len(ends) * points, progress) as bar:
        for end in ends:
            path = StraightPath(model, first, end, run.device)
            rows = []
            for share in torch.linspace(0, 1, points, dtype=torch.float64).tolist():
                network = path.at(share)
                if statistics == "reset" and 0 < share < 1:
                    reset_statistics(network, train_data, run)
                values, samples = measure(network, data, function, wanted, run)
                _check_measured(values, [] if metrics is None else wanted)
                rows.append((share, values))
                bar.update()
            shares, measured = zip(*rows, strict=True)
            curves = {name: tuple(values[name] for values in measured) for name in measured[0]}
            found.append(Barrier(shares, curves, samples, statistics))
    return found[0] if align is None else replace(found[1], alignment=align, unaligned=found[0])


def _check_call(model: nn.Module, points: int, statistics: str, align: Any, options: Mapping[str, Any]) -> None:
    """What can be told before any checkpoint is read."""
    if not isinstance(points, int) or points < 3:
        raise MetanetError(f"points={points!r}: a path has both ends and at least one point between them, so 3 or more")
    if statistics not in STATISTICS:
        raise MetanetError(f"there is no statistics={statistics!r}. Choices: {', '.join(STATISTICS)}")
    if statistics == "reset" and not normalisers(model):
        raise MetanetError(f"statistics='reset': {type(model).__name__} has no running statistics; keep does the same")
    if align is not None and not isinstance(align, (str, Alignment)):
        raise MetanetError(f"align must be the name of a matcher or an Alignment, got {type(align).__name__}")
    if options and not isinstance(align, str):
        raise MetanetError(f"unknown arguments {', '.join(options)}: options of a matcher need align=NAME")


def _check_alignment(align: Alignment, state: Mapping[str, Tensor]) -> None:
    unknown = [name for name in align.transform.spec.tensors if name not in state]
    if unknown:
        raise MetanetError(
            f"the alignment is of another architecture: it moves {unknown[0]}"
            f"{f' and {len(unknown) - 1} more tensors' if len(unknown) > 1 else ''}, which this network does not have"
        )


def _traced(model: nn.Module, data: Iterable[Any]) -> Architecture:
    """The architecture, by the network's own examples or the first batch."""
    from ..tracing import example_inputs

    if example_inputs(model) is not None:
        return trace(model)
    args, kwargs = batch_inputs(next(iter(data)))
    return trace(model, *args, **kwargs)


def _check_measured(values: Mapping[str, float], asked: Sequence[Metric]) -> None:
    missing = [m.name for m in asked if m.name not in values]
    if missing:
        raise MetanetError(f"{', '.join(missing)} can't be measured: the data's targets are no classes of samples")


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="barrier", unit=" points", disable=None if progress else True)
