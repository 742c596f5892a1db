"""The one entrance: from two checkpoints to the barrier between them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..alignment import Alignment
from ..alignment import align as align_to
from ..architecture import Architecture
from ..errors import MetanetError
from ..evaluation import (
    Metric,
    Runner,
    check_values,
    find_loss,
    find_metrics,
    fit_to,
    measure,
    repeatable,
    traced,
)
from ..merging.repairs import REPAIRS, Measured, between, calibrate, measure_layers, normalisers
from ..progress import Progress, track
from ._curve import Barrier
from ._path import StraightPath

Weights = nn.Module | Mapping[str, Tensor]
STATISTICS = {
    "keep": None,
    "reset": "bn_reset",
    **{name: name for name in REPAIRS if name != "bn_reset"},
}
"""What is done to the statistics between the ends: a repair, by the name that it has here."""


def barrier(
    a: Weights,
    b: Weights,
    *,
    model: nn.Module,
    data: Iterable[Any],
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    points: int = 25,
    align: Alignment | str | None = None,
    arch: Architecture | None = None,
    statistics: str = "keep",
    train_data: Iterable[Any] | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    **options: Any,
) -> Barrier:
    r"""Loss and accuracy along the straight path between two networks.

    The points are :math:`(1 - \lambda) a + \lambda b`.

    Linear mode connectivity (Frankle et al. 2020, https://arxiv.org/abs/1912.05671); the barrier is
    the maximum over :math:`\lambda` of the loss minus the linear interpolation of the losses at the
    ends. The network runs in eval mode. Weights and floating buffers are interpolated in float32 or
    wider, integer buffers are those of ``a``, tied tensors stay tied. One network is in memory
    beside ``a`` and ``b``, and all data is read once for every point.

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
        data: batches ``(inputs, target)`` or dicts of keyword inputs, readable again and again (no
            generator).
        loss: a name of :data:`metanet.evaluation.LOSSES` or ``loss(outputs, target)``, the mean
            over a batch. Left out: the network's own loss where it returns one (transformers, given
            ``labels``), else cross-entropy for classes and squared error for numbers.
        points: how many, both ends counted.
        align: move ``b`` onto ``a`` first, by a matcher's name or an alignment; the path without it
            is measured too.
        arch: what :func:`metanet.trace` returned, for a matcher; traced from the first batch when
            left out.
        statistics: between the ends, on ``train_data``: ``"keep"`` interpolates those of BatchNorm,
            ``"reset"`` measures them anew at each point; ``"repair"`` does so too, and brings mean
            and standard deviation of the channels of all other layers to what lies between those of
            the ends; ``"rescale"`` the standard deviation alone
            (:data:`metanet.merging.repairs.REPAIRS`).
        train_data: batches that the matcher and the statistics are given, so that the barrier is
            measured on others; ``data`` when left out.
        metrics: names of :data:`metanet.evaluation.METRICS`; those that fit the targets when left
            out.
        seed: of the matcher.
        device: where to run; the CPU when left out.
        progress: show a bar.
        options: of the matcher.

    Raises:
        CheckpointError: a checkpoint does not fit the network, or has NaN or infinite values.
        MetanetError: no such loss, metric, matcher or statistics; data that is empty, can be read
            once only, or does not fit the network.
    """
    wanted, function, run = (
        find_metrics(metrics),
        find_loss(loss),
        Runner(torch.device(device or "cpu")),
    )
    _check_call(model, points, statistics, align, options)
    data = repeatable(data)
    train_data = data if train_data is None else repeatable(train_data)
    first, second = fit_to(model, a, "a"), fit_to(model, b, "b")
    check_values(model, first)
    check_values(model, second)
    if isinstance(align, str):
        arch = arch or traced(model, data)
        align = align_to(
            second, to=first, arch=arch, method=align, seed=seed, model=model, data=train_data,
            loss=None if loss is None else function, device=device, **options,
        )  # fmt: skip
    elif align is not None:
        align.check(second)
    ends = [second] if align is None else [second, align(second)]
    found = []
    bar: Progress[None] = track(
        what="barrier", total=len(ends) * points, unit="points", show=progress
    )
    with bar:
        for end in ends:
            path = StraightPath(model, first, end, run.device)
            measured_ends = _measured_ends(path, statistics, train_data, run)
            rows = []
            for share in torch.linspace(0, 1, points, dtype=torch.float64).tolist():
                network = path.at(share)
                if statistics != "keep" and 0 < share < 1:
                    goals = between(measured_ends, [1 - share, share]) if measured_ends else {}
                    repair = REPAIRS[STATISTICS[statistics] or ""]
                    calibrate(network, train_data, run, goals, repair).fuse(network)
                values, samples = measure(network, data, function, wanted, run)
                _check_measured(values, [] if metrics is None else wanted)
                rows.append((share, values))
                bar.update()
            shares, measured = zip(*rows, strict=True)
            curves = {name: tuple(values[name] for values in measured) for name in measured[0]}
            found.append(Barrier(shares, curves, samples, statistics))
    return found[0] if align is None else replace(found[1], alignment=align, unaligned=found[0])


def _check_call(
    model: nn.Module, points: int, statistics: str, align: Any, options: Mapping[str, Any]
) -> None:
    """What can be told before any checkpoint is read."""
    if not isinstance(points, int) or points < 3:
        raise MetanetError(
            f"points={points!r}: a path has both ends and at least one point between them, so 3 or more"
        )
    if statistics not in STATISTICS:
        raise MetanetError(
            f"there is no statistics={statistics!r}. Choices: {', '.join(STATISTICS)}"
        )
    if statistics == "reset" and not normalisers(model):
        raise MetanetError(
            f"statistics='reset': {type(model).__name__} has no running statistics; "
            "repair and rescale need none"
        )
    if align is not None and not isinstance(align, (str, Alignment)):
        raise MetanetError(
            f"align must be the name of a matcher or an Alignment, got {type(align).__name__}"
        )
    if options and not isinstance(align, str):
        raise MetanetError(
            f"unknown arguments {', '.join(options)}: options of a matcher need align=NAME"
        )


def _measured_ends(
    path: StraightPath, statistics: str, data: Iterable[Any], run: Runner
) -> list[Measured]:
    """What the layers of both ends show; nothing if no layer is to come between them."""
    if REPAIRS.get(STATISTICS[statistics] or "") is None:
        return []
    found = [measure_layers(path.at(share), data, run) for share in (0.0, 1.0)]
    if not found[0].layers and not normalisers(path.model):
        raise MetanetError(
            f"statistics={statistics!r}: {type(path.model).__name__} has no layer that can be corrected"
        )
    return found


def _check_measured(values: Mapping[str, float], asked: Sequence[Metric]) -> None:
    missing = [m.name for m in asked if m.name not in values]
    if missing:
        raise MetanetError(
            f"{', '.join(missing)} can't be measured: the data's targets are no classes of samples"
        )
