"""Small programs on parameters, solved on their own: what the rules say of each operation, against
what it does."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from metanet.symmetry import SymmetrySpec, TensorAxes, Transform, leaves_of
from metanet.symmetry._groups import final_keys, group_names
from metanet.symmetry._interpretation import Interpretation
from metanet.symmetry._reader import Reader
from metanet.symmetry._records import Group
from metanet.symmetry._solver import Solver
from metanet.tracing import Trace, record, tensors_in


class Program(nn.Module):
    """``function(*tensors)`` with every floating-point tensor a parameter and all others
    constants."""

    def __init__(self, function: Callable, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.function = function
        self.constants: dict[int, Tensor] = {}
        for i, tensor in enumerate(tensors):
            if tensor.is_floating_point() or tensor.is_complex():
                self.register_parameter(f"p{i}", nn.Parameter(tensor))
            else:
                self.constants[i] = tensor
        self.count = len(tensors)

    def forward(self, unused: Tensor) -> tuple[Tensor, ...]:
        found = [
            self.constants[i] if i in self.constants else getattr(self, f"p{i}")
            for i in range(self.count)
        ]
        return tuple(tensors_in(self.function(*found)))


def solve(
    function: Callable, tensors: Sequence[Tensor]
) -> tuple[SymmetrySpec, tuple[str, ...], Trace]:
    """The symmetries of one program whose outputs may move: a spec of its parameters and outputs.

    Returns:
        The spec (outputs are called ``out0``, ...), the names of the outputs whose values move, the
        recording.
    """
    trace = record(Program(function, tensors), (torch.zeros(1),), {})
    solver = Solver()
    recording = Interpretation(solver, replace(trace, outputs=())).run()
    outputs = {}
    for i, number in enumerate(trace.outputs):
        operand = recording.operand(number)
        solver.reads.update(operand.axes)
        if operand.label is None:
            outputs[f"out{i}"] = (number, operand.axes)
        solver.spaces.add(operand.axes)
    solver.finish()
    named = {**solver.parameters, **{n: axes for n, (_, axes) in outputs.items()}}
    keys = final_keys(solver.leaves, named.values())
    names = group_names(solver.leaves, named, keys)
    groups, tensors_axes = {}, {}
    for name, axes in named.items():
        number = outputs[name][0] if name in outputs else trace.parameters[name]
        read = Reader(solver.leaves, names).axes(axes)
        tensors_axes[name] = TensorAxes(
            shape=trace.values[number].shape, dtype=trace.values[number].dtype, axes=read
        )
        for expr in axes:
            for leaf in solver.leaves.unbound(expr):
                if leaf in names:
                    kind = "permutation" if leaf in keys else "fixed"
                    own = tuple(names[k] for k in keys.get(leaf, ()))
                    groups[leaf] = Group(
                        name=names[leaf], size=solver.leaves.size((leaf,)), keys=own, kind=kind
                    )
    return SymmetrySpec(tuple(groups.values()), tensors_axes), tuple(outputs), trace


def differences(
    function: Callable,
    tensors: Sequence[Tensor],
    spec: SymmetrySpec,
    outs: Sequence[str],
    t: Transform,
) -> float:
    """How far ``function`` of relabelled parameters is from its relabelled outputs: 0 if the rules
    are right."""
    moved = [t.apply(f"p{i}", x) if f"p{i}" in spec.tensors else x for i, x in enumerate(tensors)]
    want, got = list(tensors_in(function(*tensors))), list(tensors_in(function(*moved)))
    worst = 0.0
    for name in outs:
        i = int(name.removeprefix("out"))
        expected, found = _as_real(t.apply(name, want[i])), _as_real(got[i])
        if expected.numel():
            worst = max(worst, float((expected - found).nan_to_num().abs().max()))
    return worst


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.double()


def movable(spec: SymmetrySpec) -> bool:
    """Whether any tensor moves along any axis."""
    return any(True for t in spec.tensors.values() for a in t.axes for _ in leaves_of(a))
