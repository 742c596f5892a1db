"""Bringing the statistics of a merged network to their goals, every layer with those before it
corrected already.

The first pass over the data corrects every layer on the way, after 1, 2, 4, 8, ... batches, by what
the networks that were merged gave on the same samples, so that the layers behind are measured near
their place: for data in one batch it is exact, for well mixed batches near. Further passes measure
again, with corrections that stay as they are while the data goes through: then the first layer's
are right at once, the second's one pass later, and so on. After as many passes as there are layers
the result is exact, whatever the batches and their order.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
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
# Of the largest goal in the layer; what varies less carries nothing that could be scaled up.
_DEAD = 1e-6


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
                f"the outputs of {self.goal.layer.weight} are NaN or infinite in the merged "
                "network: there is nothing to repair"
            )
        before = self.scale, self.shift
        is_shifted = self._correct(now, goal)
        size = goal.std.max().clamp(min=torch.finfo(torch.float32).tiny)
        scaled = self.scale - before[0]
        spreads = (scaled * now.std).abs().max()
        if not is_shifted:
            return float(spreads / size)
        means = (scaled * now.mean + self.shift - before[1]).abs().max()
        return float(torch.maximum(spreads, means) / size)

    def _correct(self, now: Spread, goal: Spread) -> bool:
        """Set scale and shift; whether the layer can take a shift."""
        scale, shift = self.correct(now, goal)
        alive = now.std > _DEAD * goal.std.max()
        self.scale = torch.where(alive, scale, 1.0)
        if shift is None or self.goal.layer.bias is None:
            self.shift = torch.zeros_like(self.scale)
            return False
        self.shift = torch.where(alive, shift, 0.0)
        return True

    def __call__(self, out: Tensor, axis: int) -> Tensor:
        """Outputs, corrected."""
        wide = out.float() if out.dtype.itemsize < 4 else out
        shape = [1] * out.ndim
        shape[axis] = -1
        scale = self.scale.to(wide.device, wide.dtype).view(shape)
        shift = self.shift.to(wide.device, wide.dtype).view(shape)
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
    layers: dict[str, Corrected] = {}
    if correct is not None:
        layers = {name: Corrected(goal, correct) for name, goal in (goals or {}).items()}
    norms = [Normaliser(name, module) for name, module in normalisers(model).items()]
    gauges: list[Corrected | Normaliser] = [*layers.values(), *norms]
    limit = max(2, len(gauges)) if passes is None else passes
    course = _Course(model, run, layers, norms)
    number = 0
    try:
        for number in range(1, limit + 1):
            for gauge in gauges:
                gauge.begin()
            course.read(track(data, f"statistics, pass {number}", unit="batches", show=progress))
            change = max((gauge.settle() for gauge in gauges), default=0.0)
            is_settled = change <= tolerance and not course.is_first
            if is_settled or course.corrected_once():
                break
            course.is_first = False
    finally:
        course.end()
    for norm in norms:
        if norm.moments.constant:
            raise MetanetError(
                f"{norm.name} saw one value of every channel, which has no variance: give more data"
            )
    return _corrections(layers, norms, number, course.batches)


class _Course:
    """A network that runs over the data again and again, corrected on the way.

    Attributes:
        is_first: whether this is the first pass, in which corrections change while the data goes
            through.
        batches: how many there were in this pass.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Runner,
        layers: Mapping[str, Corrected],
        norms: Sequence[Normaliser],
    ) -> None:
        self.is_first = True
        self.batches = 0
        self._model = model
        self._run = run
        self._layers = layers
        self._norms = norms
        self._mask: Tensor | None = None
        self._watch = Watch(model, self._seen)
        self._hooks = [
            norm.module.register_forward_pre_hook(partial(self._arrives, norm), with_kwargs=True)
            for norm in norms
        ]

    def read(self, data: Iterable[Any]) -> None:
        """Run the network over the data once.

        Raises:
            MetanetError: there is no batch.
        """
        watching = self._watch if self._layers else nullcontext()
        self.batches = 0
        for batch in data:
            self.batches += 1
            self._mask = batch_inputs(batch)[1].get("attention_mask")
            self._watch.begin()
            with watching:
                self._run(self._model, batch)
        if not self.batches:
            raise MetanetError(
                "the data yielded no batch: is it an iterator that was used up, or an empty folder?"
            )

    def corrected_once(self) -> bool:
        """Whether nothing was corrected twice on the way: the pass is exact then."""
        return self.batches == 1 and all(norm.calls <= 1 for norm in self._norms)

    def end(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _seen(self, layer: Layer, out: Tensor) -> Tensor:
        if layer.weight not in self._layers:
            return out
        corrected = self._layers[layer.weight]
        axis = -1 - layer.places
        corrected.moments.add(*unpadded(out, axis, self._mask))
        if self.is_first:
            corrected.settle(self.batches)
        return corrected(out, axis)

    def _arrives(
        self, norm: Normaliser, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        norm.see(first_of(args, kwargs), self._mask)
        if self.is_first:
            norm.settle()


def _corrections(
    layers: Mapping[str, Corrected], norms: Iterable[Normaliser], passes: int, batches: int
) -> Corrections:
    """What the passes over the data have come to."""
    buffers = {}
    for norm in norms:
        for name, value in norm.module.named_buffers(recurse=False):
            full_name = f"{norm.name}.{name}".lstrip(".")
            if name in ("running_mean", "running_var"):
                buffers[full_name] = value.detach().clone()
            elif name == "num_batches_tracked":
                buffers[full_name] = value.new_tensor(batches)
    weights = {name: (layer.goal.layer, layer.scale) for name, layer in layers.items()}
    biases = {}
    for layer in layers.values():
        bias = layer.goal.layer.bias
        if bias is not None:
            biases[bias] = layer.scale, layer.shift
    return Corrections(weights, biases, buffers, passes)
