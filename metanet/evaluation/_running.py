"""Running a network over data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import MetanetError
from ..tracing import tensors_in
from ._metrics import Metric
from ._outputs import classified, target_of, tokens_of


def batch_inputs(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword inputs of a batch.

    Raises:
        MetanetError: it is neither ``(inputs, target)`` nor a dict.
    """
    if isinstance(batch, Mapping):
        return (), dict(batch)
    what = type(batch).__name__
    if isinstance(batch, (tuple, list)):
        if len(batch) in (1, 2):
            inputs = batch[0]
            return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}
        what = f"{what} of {len(batch)}"
    raise MetanetError(f"data must yield (inputs, target) or dicts of keyword inputs, got a {what}")


def repeatable(data: Iterable[Any], who: str = "") -> Iterable[Any]:
    """Data that can be read more than once and is not empty.

    Args:
        who: reads it several times, for the message.

    Raises:
        MetanetError: it is an iterator, or yields nothing.
    """
    if isinstance(data, Iterator):
        if who:
            raise MetanetError(
                f"{who} reads the data several times: give a list or a DataLoader, no iterator"
            )
        raise MetanetError(
            "the data is an iterator, which can be read only once, but is needed several times: give "
            "a list or a DataLoader"
        )
    if next(iter(data), None) is None:
        raise MetanetError("the data yielded no batch: is the folder empty, or the limit 0?")
    return data


class Runner:
    """Calls a network on batches, on one device.

    Args:
        device: where the network is, and where batches go.
        state: weights by name that the network runs with in place of its own.
    """

    def __init__(self, device: torch.device, state: Mapping[str, Tensor] | None = None) -> None:
        self.device, self.state = device, state

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        """The outputs.

        Raises:
            MetanetError: the batch has another form, or the network can't run it.
        """
        args, kwargs = batch_inputs(batch)
        args, kwargs = to_device(args, self.device), to_device(kwargs, self.device)
        try:
            if self.state is None:
                return model(*args, **kwargs)
            return functional_call(model, dict(self.state), args, kwargs)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors_in((args, kwargs)))
            raise MetanetError(
                f"{type(model).__name__} can't run the data ({shapes}): {error}"
            ) from error


def asked(outputs: Any, batch: Any, device: torch.device) -> Any:
    """What a batch asks of the outputs, as every loss is given it: its target, classes as int64.

    The second of ``(inputs, target)``, or ``labels`` of a dict, on the device; ``None`` where there
    is none.
    """
    target = to_device(target_of(batch), device)
    narrow = isinstance(target, Tensor) and target.dtype != torch.int64
    return target.long() if narrow and classified(outputs, target) is not None else target


def measure(
    model: nn.Module,
    data: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    metrics: Sequence[Metric],
    run: Runner,
) -> tuple[dict[str, float], int]:
    """Means over all samples of the data.

    Of the loss, and of the metrics that the target allows.

    Args:
        model: in the mode that it is to run in.
        data: batches ``(inputs, target)`` or dicts of keyword inputs; read once.
        loss: of outputs and target, the mean over a batch; a batch counts by its samples, of
            classes by its targets.
        metrics: of scores and classes.
        run: calls the network, on a device.

    Returns:
        By name, and the number of samples.

    Raises:
        MetanetError: the network can't run a batch, the loss does not fit, or all targets are
            ignored (-100).
    """
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    samples = 0
    with torch.no_grad():
        for batch in data:
            outputs = run(model, batch)
            target = asked(outputs, batch, run.device)
            size = len(next(tensors_in(batch)))
            samples += size
            pair = classified(outputs, target)
            weight = size if pair is None else len(pair[1])
            if weight == 0:  # every place is ignored: a mean over nothing
                continue
            means = {"loss": loss(outputs, target)}
            if pair is not None and not tokens_of(outputs, target):
                means |= {metric.name: metric.measure(*pair) for metric in metrics}
            for name, mean in means.items():
                total = totals.get(name, torch.zeros(()))
                totals[name] = total + mean.detach().cpu().double() * weight
                counts[name] = counts.get(name, 0) + weight
    if not counts:
        raise MetanetError("all targets of the data are ignored (-100)")
    settle = {"loss": float, **{metric.name: metric.settle for metric in metrics}}
    return {name: settle[name](total / counts[name]) for name, total in totals.items()}, samples


def to_device(x: Any, device: torch.device | str) -> Any:
    """Nested tensors on a device; all else as it is."""
    if isinstance(x, Tensor):
        return x.to(device)
    if isinstance(x, Mapping):
        return {k: to_device(v, device) for k, v in x.items()}
    return type(x)(to_device(v, device) for v in x) if type(x) in (list, tuple) else x


def cut(batch: Any, size: int, start: int, stop: int) -> Any:
    """Some samples of a batch.

    >>> import torch
    >>> cut({"inputs": torch.arange(4), "scale": 2.0}, 4, 1, 3)
    {'inputs': tensor([1, 2]), 'scale': 2.0}

    Args:
        batch: nested tensors.
        size: of the batch: tensors with so many rows have one for each sample; all else is passed on.
        start, stop: the samples that stay.
    """
    if isinstance(batch, Tensor):
        return batch[start:stop] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {key: cut(value, size, start, stop) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(cut(value, size, start, stop) for value in batch)
    return batch
