"""Bringing the statistics of a merged network to their goals, every layer with those before it
corrected already.

The first pass over the data corrects every layer on the way, after 1, 2, 4, 8, ... batches, by what
the networks that were merged gave on the same samples, so that the layers behind are measured near
their place: for data in one batch it is exact, for well mixed batches near. Further passes measure
again, with corrections that stay as they are while the data goes through: then the first layer's
are right at once, the second's one pass later, and so on. After as many passes as there are layers
the result is exact, whatever the batches and their order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MetanetError
from ...evaluation import Runner, batch_inputs, entries
from ...progress import track
from ._contractions import Layer, Watch
from ._goals import Spread, first_of
from ._moments import Moments, unpadded
from ._normalisers import Normaliser, normalisers
from ._registry import Correct

TOLERANCE = 1e-3
"""Further passes end when nothing changes by more, in standard deviations."""
_DEAD = 1e-6  # of the largest goal in the layer; what varies less carries nothing that could be scaled up


class Corrected:
    """One layer, its goal and its correction.

    Args:
        goal: what its outputs are to show.
        correct: scale and shift by what they show.
    """

    def __init__(self, goal: Spread, correct: Correct) -> None:
        self.goal, self.correct = goal, correct
        self.scale, self.shift = torch.ones_like(goal.std), torch.zeros_like(goal.mean)
        self.begin()

    def begin(self) -> None:
        """The next pass over the data."""
        self.moments = Moments()

    def settle(self, batches: int | None = None) -> float:
        """Correct by what was measured; how much that changes, in standard deviations of the goal.

        Args:
            batches: how many there were so far, if not all; nothing changes where that has no goal.

        Raises:
            MetanetError: the outputs are not finite.
        """
        goal = self.goal if batches is None else self.goal.early.get(batches)
        if goal is None or not self.moments.count:  # an expert that no token came to
            return 0.0
        now = Spread(self.goal.layer, self.moments.mean.cpu(), self.moments.std.cpu())
        if not bool(torch.isfinite(now.mean).all() and torch.isfinite(now.std).all()):
            raise MetanetError(
                f"the outputs of {self.goal.layer.weight} are NaN or infinite in the merged network: there is nothing "
                "to repair"
            )
        scale, shift = self.correct(now, goal)
        alive = now.std > _DEAD * goal.std.max()
        scale = torch.where(alive, scale, 1.0)
        kept = shift is None or self.goal.layer.bias is None
        shift = torch.zeros_like(scale) if kept else torch.where(alive, shift, 0.0)
        size = goal.std.max().clamp(min=torch.finfo(torch.float32).tiny)
        spreads = ((scale - self.scale) * now.std).abs().max()
        means = ((scale - self.scale) * now.mean + shift - self.shift).abs().max()
        self.scale, self.shift = scale, shift
        return float(spreads / size if kept else torch.maximum(spreads, means) / size)

    def __call__(self, out: Tensor, axis: int) -> Tensor:
        """Outputs, corrected."""
        wide = out.float() if out.dtype.itemsize < 4 else out
        shape = [-1 if n == axis % out.ndim else 1 for n in range(out.ndim)]
        scale, shift = (t.to(wide.device, wide.dtype).view(shape) for t in (self.scale, self.shift))
        return torch.addcmul(shift, wide, scale).to(out.dtype)


@dataclass(frozen=True)
class Corrections:
    """What repairs a network.

    Attributes:
        weights: by name, the layer and the scale of its outputs.
        biases: by name, scale and what is added then.
        buffers: by name, new values.
        passes: how often the data was read.
    """

    weights: Mapping[str, tuple[Layer, Tensor]] = field(default_factory=dict)
    biases: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    passes: int = 0

    def __contains__(self, name: str) -> bool:
        return name in self.weights or name in self.biases or name in self.buffers

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the network, corrected; on the device and in the dtype that it came with."""
        if name in self.buffers:
            return self.buffers[name].to(tensor.device, tensor.dtype).reshape(tensor.shape).clone()
        if name not in self:
            return tensor
        wide = torch.promote_types(tensor.dtype, torch.float32)
        if name in self.weights:
            layer, scale = self.weights[name]
            return layer.scaled(tensor.to(wide), scale.to(tensor.device, wide)).to(tensor.dtype)
        scale, shift = (t.to(tensor.device, wide) for t in self.biases[name])
        return torch.addcmul(shift, tensor.to(wide), scale).to(tensor.dtype)

    @torch.no_grad()
    def fuse(self, model: nn.Module) -> None:
        """Correct a module's tensors in place."""
        tensors, first = entries(model)
        for name, tensor in tensors.items():
            if first[name] == name and name in self:
                tensor.copy_(self(name, tensor))


@torch.no_grad()
def calibrate(
    model: nn.Module,
    data: Iterable[Any],
    run: Runner,
    goals: Mapping[str, Spread] | None = None,
    correct: Correct | None = None,
    *,
    passes: int | None = 1,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> Corrections:
    """Measure running statistics anew, and bring those of other layers to their goals.

    Args:
        model: in eval mode; its running statistics are written over, its weights stay
            (:meth:`Corrections.fuse`).
        data: batches.
        run: calls it.
        goals: of layers, by the names of their weights.
        correct: scale and shift of a layer; ``None``: of running statistics alone.
        passes: at most so many; ``None``: as many as there are layers, which always suffice.
        tolerance: no further pass when nothing changes by more.
        progress: whether to show a bar.

    Raises:
        MetanetError: no batch, one that the network can't run, a normaliser that sees one value of
            a channel only, or outputs that are not finite.
    """
    layers = (
        {}
        if correct is None
        else {n: Corrected(goal, correct) for n, goal in (goals or {}).items()}
    )
    norms = [Normaliser(name, module) for name, module in normalisers(model).items()]
    gauges = [*layers.values(), *norms]
    first_pass, batches, mask = True, 0, None

    def seen(layer: Layer, out: Tensor) -> Tensor:
        if layer.weight not in layers:
            return out
        found, axis = layers[layer.weight], -1 - layer.places
        found.moments.add(*unpadded(out, axis, mask))
        if first_pass:
            found.settle(batches)
        return found(out, axis)

    def arrives(norm: Normaliser) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            norm.see(first_of(args, kwargs), mask)
            if first_pass:
                norm.settle()

        return hook

    watch = Watch(model, seen)
    hooks = [n.module.register_forward_pre_hook(arrives(n), with_kwargs=True) for n in norms]
    number = 0
    try:
        limit = max(2, len(gauges)) if passes is None else passes
        for number in range(1, limit + 1):
            for gauge in gauges:
                gauge.begin()
            batches = 0
            for batch in _shown(data, number, progress):
                batches += 1
                mask = batch_inputs(batch)[1].get("attention_mask")
                watch.begin()
                if layers:
                    with watch:
                        run(model, batch)
                else:
                    run(model, batch)
            if not batches:
                raise MetanetError(
                    "the data yielded no batch: is it an iterator that was used up, or an empty folder?"
                )
            change = max((gauge.settle() for gauge in gauges), default=0.0)
            once = batches == 1 and all(
                norm.calls <= 1 for norm in norms
            )  # nothing was corrected twice on the way
            if once or (change <= tolerance and not first_pass):
                break
            first_pass = False
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        if norm.moments.constant:
            raise MetanetError(
                f"{norm.name} saw one value of every channel, which has no variance: give more data"
            )
    return _corrections(layers, norms, number, batches)


def _corrections(
    layers: Mapping[str, Corrected], norms: Iterable[Normaliser], passes: int, batches: int
) -> Corrections:
    buffers = {}
    for norm in norms:
        for name, value in norm.module.named_buffers(recurse=False):
            if name in ("running_mean", "running_var"):
                buffers[f"{norm.name}.{name}".lstrip(".")] = value.detach().clone()
            elif name == "num_batches_tracked":
                buffers[f"{norm.name}.{name}".lstrip(".")] = value.new_tensor(batches)
    weights = {name: (each.goal.layer, each.scale) for name, each in layers.items()}
    biases = {
        b: (each.scale, each.shift)
        for each in layers.values()
        if (b := each.goal.layer.bias) is not None
    }
    return Corrections(weights, biases, buffers, passes)


def _shown(data: Iterable[Any], number: int, progress: bool) -> Iterable[Any]:
    return track(data, f"statistics, pass {number}", unit="batches", show=progress)
