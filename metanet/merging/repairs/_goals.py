"""What the layers of a merged network are to show: the statistics of the networks that it was
merged from."""

from collections.abc import Iterable, Mapping, Sequence
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
    early: dict[str, dict[int, Spread]] = {}
    mask: Tensor | None = None

    def seen(layer: Layer, out: Tensor) -> Tensor:
        found = moments.setdefault(layer.weight, (layer, Moments()))[1]
        found.add(*unpadded(out, -1 - layer.places, mask))
        return out

    watch = Watch(model, seen)
    hooks = [
        m.register_forward_pre_hook(
            lambda _, args, kwargs: watch.normalised(first_of(args, kwargs)), with_kwargs=True
        )
        for m in normalisers(model).values()
    ]
    try:
        batches = 0
        for batch in data:
            batches += 1
            mask = batch_inputs(batch)[1].get("attention_mask")
            watch.begin()
            with watch:
                run(model, batch)
            if is_early(batches):
                for name, (layer, found) in moments.items():
                    early.setdefault(name, {})[batches] = Spread(
                        layer, found.mean.cpu(), found.std.cpu()
                    )
    finally:
        for hook in hooks:
            hook.remove()
    if not batches:
        raise MetanetError(
            "the data yielded no batch: is it an iterator that was used up, or an empty folder?"
        )
    whole = {n: t for n, t in model.named_parameters() if t.ndim > 1}
    left = {
        n: watch.left.get(n, "never used by a function that is known")
        for n in whole
        if n not in moments
    }
    layers = {}
    for name, (layer, found) in moments.items():
        if reason := watch.left.get(name) or watch.left.get(layer.bias or ""):
            left[name] = reason
        else:
            layers[name] = Spread(layer, found.mean.cpu(), found.std.cpu(), early.get(name, {}))
    return Measured(layers, left)


def between(ends: Sequence[Measured], weights: Sequence[float]) -> dict[str, Spread]:
    r"""The goals: :math:`\mu = \sum_k w_k \mu_k` and :math:`\sigma = \sum_k w_k \sigma_k` (Jordan
    et al. 2022).

    Args:
        ends: the networks.
        weights: how much each counts; they sum to 1.

    Raises:
        MetanetError: a weight is negative.
    """
    if any(w < 0 for w in weights):
        raise MetanetError(
            f"the statistics of models with weights {', '.join(f'{w:g}' for w in weights)} are no goal, as negative "
            "weights take them off one another: repair by bn_reset, or not at all"
        )
    names = [name for name in ends[0].layers if all(name in each.layers for each in ends)]
    return {name: _mean([each.layers[name] for each in ends], weights) for name in names}


def _mean(spreads: Sequence[Spread], weights: Sequence[float]) -> Spread:
    mean, std = (
        sum(w * t for w, t in zip(weights, ts, strict=True))
        for ts in ([s.mean for s in spreads], [s.std for s in spreads])
    )
    numbers = [n for n in spreads[0].early if all(n in s.early for s in spreads)]
    return Spread(
        spreads[0].layer,
        mean,
        std,
        {n: _mean([s.early[n] for s in spreads], weights) for n in numbers},
    )


def is_early(batches: int) -> bool:
    """Whether statistics are looked at after so many batches: 1, 2, 4, 8, ..."""
    return batches & (batches - 1) == 0


def first_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The input of a layer that was called with one."""
    return args[0] if args else next(iter(kwargs.values()))
