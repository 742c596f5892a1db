"""Which neurons may become one: those that nothing but weights puts together.

Where neurons i and j show the same, what reads j may be moved over to i, and j may be dropped.
Unless something else looks at all neurons at once: the mean and spread that a layer norm takes, a
softmax over them, the product of queries and keys. Instead of a list of such operations the network
itself is asked: its recording runs twice, with equal neurons, and with the readers moved over and j
changed at will. Both must give the same.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...alignment import stored_name
from ...architecture import Architecture
from ...errors import MetanetError
from ...graph import real_parts
from ...symmetry import SymmetrySpec
from ...tracing import Trace
from ...verification import change_of, float64
from ._roles import Roles, along, candidates, groups_on, roles_of

_BOUND = "something but weights looks at all its neurons, as a layer norm does"
_SAME = 1e-8  # relative change of the outputs, in float64


def free_groups(
    arch: Architecture, state: Mapping[str, Tensor]
) -> tuple[list[str], dict[str, str], Roles]:
    """Groups whose neurons may become one, and for all others why they may not; the roles of all
    axes.

    Args:
        state: weights of the network; the question is asked near these.

    Raises:
        MetanetError: the architecture was loaded from a file, without its recording.
    """
    if arch.recording is None:
        raise MetanetError(
            "merging features runs the recording: give arch=metanet.trace(model, inputs), or "
            "model=..."
        )
    roles = roles_of(arch.template)
    asked, why = candidates(arch.spec, roles)
    trial = _Trial(arch.recording, arch.spec, roles, state)
    bound = dict.fromkeys(trial.bound(asked), _BOUND)
    return [g for g in asked if g not in bound], {**why, **bound}, roles


class _Trial:
    """The network at float64 weights near the given ones, where no bias, gain or branch is exactly
    zero."""

    def __init__(
        self, trace: Trace, spec: SymmetrySpec, roles: Roles, state: Mapping[str, Tensor]
    ) -> None:
        self.trace, self.spec, self.roles = trace, spec, roles
        self.generator = torch.Generator().manual_seed(0)
        self.state: dict[str, Tensor] = {}
        for name in (n for n in trace.parameters if n not in trace.others):
            first = spec.tensors[name].tied_to or name
            known = self.state.get(first)
            self.state[name] = (
                self._near(state[stored_name(spec, first, state)]) if known is None else known
            )
        self.state |= {n: state[n] for n in trace.others if n in state}
        self.inputs = [
            self._input(trace.values[n].shape, trace.values[n].dtype) for n in trace.inputs
        ]

    def _near(self, tensor: Tensor) -> Tensor:
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        tensor = tensor.detach().to("cpu", wide)
        size = tensor.abs().square().mean().sqrt().clamp(min=0.02) if tensor.numel() else 1.0
        if tensor.ndim > 1:
            return tensor + 0.05 * size * torch.randn(
                tensor.shape, generator=self.generator, dtype=wide
            )
        return tensor + 0.1 * size * torch.rand(tensor.shape, generator=self.generator, dtype=wide)

    def _input(self, shape: Sequence[int], dtype: str) -> Tensor:
        kind = getattr(torch, dtype)
        if kind.is_floating_point or kind.is_complex:
            wide = torch.complex128 if kind.is_complex else torch.float64
            return torch.randn(*shape, generator=self.generator, dtype=wide)
        if kind == torch.bool:  # a mask that hides everything makes NaN
            return torch.ones(*shape, dtype=kind)
        return torch.randint(0, 2, tuple(shape), generator=self.generator).to(
            kind
        )  # every table has two rows

    def bound(self, groups: Sequence[str]) -> list[str]:
        """Those of the groups that may not be merged, found by halving."""
        if not groups or self._same(groups):
            return []
        if len(groups) == 1:
            return list(groups)
        half = len(groups) // 2
        return self.bound(groups[:half]) + self.bound(groups[half:])

    def _same(self, groups: Sequence[str]) -> bool:
        equal, moved = dict(self.state), dict(self.state)
        for name, tensor in self.state.items():
            if name not in self.trace.others and groups_on(self.spec, name, groups):
                axes = self.spec.tensors[name].axes
                equal[name] = along(tensor, axes, _Pairs(name, self.roles, groups, None))
                moved[name] = along(tensor, axes, _Pairs(name, self.roles, groups, self.generator))
        want, got = self._run(equal), self._run(moved)
        return all(change_of(g, w) < _SAME for g, w in zip(got, want, strict=True))

    def _run(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.no_grad(), float64():
            values = self.trace.replay(state, *self.inputs, keep=set(self.trace.outputs))
        entering = dict(zip(self.trace.inputs, self.inputs, strict=True))
        found = [
            values[n] if n in values else entering[n]
            for n in self.trace.outputs
            if n in values or n in entering
        ]
        return [real_parts(t).double() for t in found]


class _Pairs:
    """Every second neuron is made like the one before; or nothing reads it any more, and it is made
    otherwise."""

    def __init__(
        self, name: str, roles: Roles, groups: Sequence[str], moved: torch.Generator | None
    ) -> None:
        self.name, self.roles, self.groups, self.moved = name, roles, set(groups), moved

    def __call__(self, tensor: Tensor, at: int, group: str, number: int) -> Tensor:
        if group not in self.groups:
            return tensor
        n = tensor.shape[at] // 2 * 2
        first, gone = torch.arange(0, n, 2), torch.arange(1, n, 2)
        other = tensor.index_select(at, gone)
        if not self.roles.makes(self.name, number):
            if self.moved is None:
                return tensor
            return tensor.index_add(at, first, other).index_fill(at, gone, 0.0)
        if self.moved is None:
            return tensor.index_copy(at, gone, tensor.index_select(at, first))
        noise = torch.rand(other.shape, generator=self.moved, dtype=torch.float64)
        size = tensor.square().mean().sqrt()
        return tensor.index_copy(at, gone, other * (1 + noise) + 0.3 * size * noise)
