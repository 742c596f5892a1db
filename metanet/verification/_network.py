"""The float64 copy that a verification runs, again and again, always from the same state."""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..errors import MetanetError
from ..symmetry import SymmetrySpec
from ..tracing import is_integer, prepare, results, tensors_in
from ._float64 import float64, to_double, widen
from ._integers import redraw_integers
from ._paths import ways
from ._redraw import calibrated, noise_like, redraw

# Gain of the matrices and size of the offsets, tried in this order until the output shows what
# every part does. In a deep network whose norms stand on the residual stream (BERT) large offsets
# add up until all tokens are alike, and attention is blind; with the calmest, matrices hardly
# matter, but nothing explodes.
_LEVELS = ((1.0, 0.5), (0.6, 0.2), (0.4, 0.1), (0.3, 0.03), (0.1, 0.1), (0.03, 0.03))
PROBES = 12  # matrices that are shaken to see this
_DIM = 1e-5  # an output change below counts as not showing
_HUGE = 1e30  # from here on a number is a mask (finfo.min), not a value


class Network:
    """A redrawn float64 copy of a module.

    Args:
        probes: how many matrices are shaken to choose the scale.

    Attributes:
        state: the redrawn tensors that the spec names.
        want: the outputs at this state.
        kept: buffers of integers that stay as they are: with other values the network raises, or
            returns no numbers.
        ways: what it did where it read numbers from tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: SymmetrySpec,
        args: Any,
        kwargs: Any,
        generator: torch.Generator,
        probes: int = PROBES,
    ) -> None:
        self.name = type(model).__name__
        self._refuse_meta(model, args, kwargs)
        self.model = to_double(prepare(model))
        self.args = args
        self.kwargs = kwargs
        self.tensors = _tensors(self.model, spec, self.name)
        self._all = list(self.model.modules())
        self._remember()
        self.kept = self._draw_integers(generator)
        self._draw(spec, generator, probes)
        with ways() as self.ways:
            again = self.run()
        noise = self.change(again)
        if noise > 1e-11:
            raise MetanetError(
                f"{self.name} is not deterministic: two runs with the same parameters and inputs differ by "
                f"{noise:.1e} of the output's spread. Does it draw random numbers in eval mode? Give it "
                "the noise as an input, or switch it off"
            )

    def _refuse_meta(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = ((f"input {i}", t) for i, t in enumerate(tensors_in((args, kwargs))))
        for what, tensor in (*model.named_parameters(), *model.named_buffers(), *inputs):
            if tensor.is_meta:
                raise MetanetError(
                    f"verification runs the network, but {what} is on the meta device: materialise it "
                    f"(build {self.name} outside torch.device('meta'); a smaller size of the same "
                    "architecture will do)"
                )

    def _draw_integers(self, generator: torch.Generator) -> tuple[str, ...]:
        """New values for masks and index tables; the names of those that do not allow it."""
        old: dict[str, Tensor] = {}
        for name, tensor in self.tensors.items():
            is_table = tensor.ndim > 0 and tensor.numel() > 1
            if is_table and is_integer(tensor.dtype):
                old[name] = tensor.clone()
        if not old:
            return ()
        sound = all(map(_healthy, self._run()))
        new = {n: redraw_integers(t, generator) for n, t in old.items()}
        if self._works(new, sound):
            return ()
        self.write(old)
        stubborn = []
        for name in old:  # one by one: which is it?
            if not self._works({name: new[name]}, sound):
                self._works({name: old[name]}, sound)
                stubborn.append(name)
        return tuple(stubborn)

    def _works(self, integers: Mapping[str, Tensor], sound: bool) -> bool:
        """Whether the network runs with these values, and returns numbers if it did before."""
        self.write(integers)
        self._remember()
        try:
            return all(map(_healthy, self._run())) or not sound
        except MetanetError:
            return False

    def _draw(self, spec: SymmetrySpec, generator: torch.Generator, probes: int) -> None:
        """New values for all tensors, at the first scale where the output shows every part, else at
        the best."""
        old = {n: t.clone() for n, t in self.tensors.items() if not is_integer(t.dtype)}
        matrices = _matrices(spec)
        order = torch.randperm(len(matrices), generator=generator).tolist()
        best: tuple[int, dict[str, Tensor]] | None = None
        self._remember()
        for gain, offset in _LEVELS:
            new = redraw(old, generator, model=self.model, gain=gain, offset=offset)
            new.update({n: new[t.tied_to] for n, t in spec.tensors.items() if t.tied_to in new})
            self.write(new)
            self._run(calibrated(self.model, generator), undo=False)
            self.state = {n: self.tensors[n].clone() for n in spec.tensors}
            self._remember()
            self.want = self.run()
            if not all(map(_healthy, self.want)):
                continue
            dim = sum(self._dim(matrices[i], generator) for i in order[:probes])
            if best is None or dim < best[0]:
                best = dim, self.state
            if dim <= probes // 10:
                break
        if best is None:
            raise MetanetError(
                f"{self.name} returns no numbers (NaN, or infinite throughout) at random parameters of any "
                "scale. Do the inputs hold NaN, or do they mask every position?"
            )
        self.state = best[1]
        self.write(self.state)
        self._remember()
        self.want = self.run()

    def _dim(self, name: str, generator: torch.Generator) -> bool:
        """Whether the output hardly shows noise as large as the tensor itself."""
        old = self.state[name]
        return self.change(self.run({name: old + noise_like(old, generator)})) < _DIM

    def write(self, state: Mapping[str, Tensor]) -> None:
        """Set tensors in place, so that everything which shares their memory (ties, LSTM's flat
        list) sees it."""
        with torch.no_grad():
            for name, tensor in state.items():
                self.tensors[name].copy_(tensor)

    def run(self, changed: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """The outputs when some tensors have other values; the state is as before afterwards."""
        changed = changed or {}
        self.write(changed)
        try:
            return self._run()
        finally:
            self.write({n: self.state[n] for n in changed})

    def _run(self, context: Any = None, undo: bool = True) -> list[Tensor]:
        versions = [b._version for b in self._buffers]
        args, kwargs = tree_map(_fresh, (self.args, self.kwargs))
        try:
            with torch.no_grad(), float64(), context or nullcontext():
                out = self.model(*args, **kwargs)
        except Exception as e:
            self._undo(versions, undo)
            raise MetanetError(
                f"the forward pass of {self.name} raised {type(e).__name__}: {e}\n"
                "  Check that model(*inputs) runs in eval mode with the inputs given to verify(); "
                "verification runs a float64 copy."
            ) from e
        real, wide = [], []
        for t in results(out):
            if t.is_complex():
                wide.append(t.detach().to(torch.complex128, copy=True).resolve_conj())
            else:
                real.append(t.detach().to(torch.float64, copy=True))
        outputs = [*real, *map(torch.view_as_real, wide)]
        self._undo(versions, undo)
        if not any(t.numel() for t in outputs):
            raise MetanetError(
                f"{self.name} returned {type(out).__name__} without a tensor: nothing to compare"
            )
        return outputs

    def _undo(self, versions: list[int], buffers: bool) -> None:
        """Modules as they were before a run, and buffers that it wrote into if asked for."""
        for module, attributes in zip(self._all, self._attributes, strict=True):
            vars(module).clear()
            vars(module).update({k: _shallow(v) for k, v in attributes.items()})
        if not buffers:
            return
        for (buffer, value), version in zip(self._buffers.items(), versions, strict=True):
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)

    def _remember(self) -> None:
        """What modules keep on themselves: some cache tensors made from parameters, which must not
        outlive a run."""
        self._attributes = list(map(_attributes, self._all))
        self._buffers = {b: b.detach().clone() for b in self.model.buffers()}

    def change(self, got: list[Tensor]) -> float:
        """Largest difference from ``want``, relative to the spread of each output; infinite if
        masks differ."""
        shapes = [t.shape for t in got]
        if shapes != [t.shape for t in self.want]:
            return float("inf")
        return max(map(change_of, got, self.want), default=0.0)


def _tensors(model: nn.Module, spec: SymmetrySpec, name: str) -> dict[str, Tensor]:
    """The module's own tensors by state dict name.

    Raises:
        MetanetError: the spec is of another architecture.
    """
    state = model.state_dict(keep_vars=True)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    absent = [n for n in spec.tensors if n not in tensors]
    if absent:
        raise MetanetError(
            f"the spec names tensors that {name} does not have: {', '.join(absent[:5])}"
        )
    unknown = [n for n, t in tensors.items() if t.is_floating_point() and n not in spec.tensors]
    if unknown:
        raise MetanetError(
            f"{name} has tensors that the spec does not name: {', '.join(unknown[:5])}"
        )
    for key, known in spec.tensors.items():
        if tuple(tensors[key].shape) != known.shape:
            raise MetanetError(
                f"{key} of {name} is {tuple(tensors[key].shape)}, but {known.shape} in the spec"
            )
    return tensors


def _matrices(spec: SymmetrySpec) -> list[str]:
    """Names of the matrices and kernels, a tied one once."""
    own = {name: t for name, t in spec.tensors.items() if not t.tied_to and not t.integer}
    return [name for name, t in own.items() if len(t.shape) > 1]


def _fresh(x: Any) -> Any:
    """A copy for one run: networks may write into their inputs."""
    return widen(x.detach().clone()) if isinstance(x, Tensor) else copy.deepcopy(x)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: _shallow(value) for name, value in vars(module).items()}


def _shallow(x: Any) -> Any:
    return copy.copy(x) if type(x) in (dict, list, set) else x


def _ordinary(x: Tensor) -> Tensor:
    return torch.isfinite(x) & (x.abs() < _HUGE)


def _healthy(x: Tensor) -> bool:
    if x.numel() == 0:
        return True
    return bool(_ordinary(x).any()) and not bool(x.isnan().any())


def change_of(got: Tensor, want: Tensor) -> float:
    """Largest difference relative to the spread of ``want``.

    Infinite where only one of them is masked or NaN.
    """
    plain = _ordinary(want)
    if not torch.equal(plain, _ordinary(got)):
        return float("inf")
    masked, reference = got[~plain], want[~plain]
    close = (masked - reference).abs() < 1e-9 * reference.abs()
    if not bool(((masked == reference) | close).all()):
        return float("inf")
    got, want = got[plain], want[plain]
    if not want.numel():
        return 0.0
    largest = want.abs().max()
    spread = torch.maximum((want - want.mean()).abs().max(), 1e-6 * largest)
    if want.numel() == 1:  # its own size
        spread = largest
    return float((got - want).abs().max() / (spread if spread > 0 else 1.0))
