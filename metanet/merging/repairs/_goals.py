"""What the layers of a merged network are to show: the statistics of the networks that it was
merged from."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MetanetError
from ...evaluation import Runner, batch_inputs
from ._contractions import Layer, Watch
from ._moments import Moments, unpadded
from ._normalisers import normalisers


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of every channel of a layer's outputs.

    Attributes:
        layer: where.
        mean, std: over all data.
        early: the same over the first 1, 2, 4, 8, ... batches, by their number: what is measured on
            the way is compared with what the same samples gave before.
    """

    layer: Layer
    mean: Tensor
    std: Tensor
    early: Mapping[int, "Spread"] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What the layers of one network show.

    Attributes:
        layers: by the name of the weight, those that a correction can go into.
        left: by the name of the weight, why no correction can go into the others.
    """

    layers: Mapping[str, Spread]
    left: Mapping[str, str]


@torch.no_grad()
def measure_layers(model: nn.Module, data: Iterable[Any], run: Runner) -> Measured:
    """Statistics of the outputs of every layer, over all samples of the data.

    Args:
        model: in eval mode; it is run once over the data.

    Raises:
        MetanetError: no batch, or one that the network can't run.
    """
    moments: dict[str, tuple[Layer, Moments]] = {}
    early: dict[str, dict[int, Spread]] = defaultdict(dict)
    mask: Tensor | None = None

    def seen(layer: Layer, out: Tensor) -> Tensor:
        _, of_layer = moments.setdefault(layer.weight, (layer, Moments()))
        of_layer.add(*unpadded(out, -1 - layer.places, mask))
        return out

    watch = Watch(model, seen)

    def arrives(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        watch.normalised(first_of(args, kwargs))

    hooks = [
        norm.register_forward_pre_hook(arrives, with_kwargs=True)
        for norm in normalisers(model).values()
    ]
    batches = 0
    try:
        for batch in data:
            batches += 1
            mask = batch_inputs(batch)[1].get("attention_mask")
            watch.begin()
            with watch:
                run(model, batch)
            if is_early(batches):
                for name, (layer, of_layer) in moments.items():
                    early[name][batches] = _spread(layer, of_layer)
    finally:
        for hook in hooks:
            hook.remove()
    if not batches:
        raise MetanetError(
            "the data yielded no batch: is it an iterator that was used up, or an empty folder?"
        )
    layers: dict[str, Spread] = {}
    left = _never_seen(model, watch, moments)
    for name, (layer, of_layer) in moments.items():
        reason = watch.left.get(name) or watch.left.get(layer.bias or "")
        if reason:
            left[name] = reason
        else:
            layers[name] = _spread(layer, of_layer, early.get(name, {}))
    return Measured(layers, left)


def _spread(layer: Layer, moments: Moments, early: Mapping[int, Spread] | None = None) -> Spread:
    return Spread(layer, moments.mean.cpu(), moments.std.cpu(), early or {})


def _never_seen(model: nn.Module, watch: Watch, seen: Collection[str]) -> dict[str, str]:
    """Weights that no layer showed of, and why."""
    weights = [name for name, tensor in model.named_parameters() if tensor.ndim > 1]
    unknown = "never used by a function that is known"
    return {name: watch.left.get(name, unknown) for name in weights if name not in seen}


def between(ends: Sequence[Measured], weights: Sequence[float]) -> dict[str, Spread]:
    r"""The goals: :math:`\mu = \sum_k w_k \mu_k` and :math:`\sigma = \sum_k w_k \sigma_k` (Jordan
    et al. 2022).

    Args:
        ends: the networks.
        weights: how much each counts; they sum to 1.

    Raises:
        MetanetError: a weight is negative.
    """
    if any(weight < 0 for weight in weights):
        raise MetanetError(
            f"the statistics of models with weights {', '.join(f'{w:g}' for w in weights)} are no "
            "goal, as negative weights take them off one another: repair by bn_reset, or not at all"
        )
    shared = [name for name in ends[0].layers if all(name in end.layers for end in ends)]
    return {name: _mean([end.layers[name] for end in ends], weights) for name in shared}


def _mean(spreads: Sequence[Spread], weights: Sequence[float]) -> Spread:
    """The weighted mean of means and of standard deviations, of first batches too."""
    pairs = list(zip(weights, spreads, strict=True))
    early = {}
    for number in spreads[0].early:
        if all(number in spread.early for spread in spreads):
            early[number] = _mean([spread.early[number] for spread in spreads], weights)
    return Spread(
        spreads[0].layer,
        _sum(weight * spread.mean for weight, spread in pairs),
        _sum(weight * spread.std for weight, spread in pairs),
        early,
    )


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    total: Tensor = sum(tensors)  # type: ignore[assignment]
    return total


def is_early(batches: int) -> bool:
    """Whether statistics are looked at after so many batches: 1, 2, 4, 8, ..."""
    return batches & (batches - 1) == 0


def first_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The input of a layer that was called with one."""
    return args[0] if args else next(iter(kwargs.values()))
