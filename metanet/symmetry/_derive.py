"""From a recording to its symmetries: every axis of every tensor gets an expression, every operation its say."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import MetanetError
from ..tracing import Op, Ref, Trace
from . import rules  # noqa: F401  (registers the rules)
from ._axes import Axis, Fixed, Leaf, axis_product
from ._leaves import Expr, Leaves
from ._semantics import Call, Operand, Semantics, find_rule
from ._spec import Group, SymmetrySpec, TensorAxes


@dataclass(frozen=True)
class Derivation:
    """The solved recording, for those that need more than the spec (the graph builder).

    Attributes:
        leaves: the solver; ``leaves.expand(e)`` gives an expression in solved factors.
        axes: expressions of every value's axes.
        semantics: what the rule said of each operation, in the order of ``trace.ops``; ``None`` without a rule.
        spec: the result.
        group_of: name of the group of every free factor that a parameter has.
        warnings: operations without a rule.
    """

    leaves: Leaves
    axes: dict[int, tuple[Expr, ...]]
    semantics: tuple[Semantics | None, ...]
    spec: SymmetrySpec
    group_of: dict[int, str]
    warnings: tuple[str, ...]

    def factors(self, expr: Expr) -> tuple[tuple[int, int], ...]:
        """``(root, size)`` of every factor of an expression, slowest first."""
        return tuple((r, self.leaves.size((r,))) for r in self.leaves.expand(expr))

    def axis(self, expr: Expr) -> Axis:
        """An expression as an axis of the spec."""
        parts: list[Axis] = []
        for root, size in self.factors(expr):
            if root in self.group_of:
                parts.append(Leaf(self.group_of[root], size))
            else:
                parts.append(Fixed(size, self.leaves.reason(root) or "no parameter moves with it"))
        return axis_product(parts)


def derive(trace: Trace) -> Derivation:
    """All permutation symmetries that the rules can show (sound always, see DESIGN section 5)."""
    leaves, axes = Leaves(), {}
    unruled: dict[str, list[Op]] = {}

    def start(number: int) -> tuple[Expr, ...]:
        value = trace.values[number]
        exprs = tuple(leaves.new(n) for n in value.shape)
        if number in trace.constants:
            for axis, expr in enumerate(exprs):
                if _varies(trace.constants[number], axis):
                    leaves.fix(expr, "a constant varies along it")
        elif value.origin == "input":
            for expr in exprs:
                leaves.fix(expr, "axis of the network's input")
        return exprs

    def operand(number: int) -> Operand:
        if number not in axes:
            axes[number] = start(number)
        return Operand(number, trace.values[number].shape, axes[number])

    def argument(x: Any) -> Any:
        if isinstance(x, Ref):
            return operand(x.value)
        return type(x)(map(argument, x)) if isinstance(x, (list, tuple)) else x

    for number in (*trace.inputs, *dict.fromkeys(trace.parameters.values())):
        operand(number)
    said: list[Semantics | None] = []
    for op in trace.ops:
        shapes = tuple(None if o is None else trace.values[o].shape for o in op.outputs)
        found = find_rule(op.name, op.call)
        if found is None:
            semantics = None
            unruled.setdefault(op.name, []).append(op)
            for number in op.inputs():
                for expr in operand(number).axes:
                    leaves.fix(expr, f"{op.name} has no rule")
        else:
            semantics = _apply(found, op, Call(op.name, shapes, leaves), argument, leaves)
        said.append(semantics)
        for position, number in enumerate(op.outputs):
            if number is None:
                continue
            out = semantics.outputs[position] if semantics is not None else None
            if out is None:
                out = tuple(leaves.new(n) for n in trace.values[number].shape)
                for expr in out:
                    leaves.fix(expr, f"result of {op.name} that is not followed")
            axes[number] = tuple(out)
    for number in trace.outputs:
        for expr in operand(number).axes:
            leaves.fix(expr, "axis of the network's output")
    used = {n for op in trace.ops for n in op.inputs()} | set(trace.outputs)
    for number in dict.fromkeys(trace.parameters.values()):
        if number not in used:
            for expr in axes[number]:
                leaves.fix(expr, "the example did not read this tensor")

    spec, group_of = _name_groups(trace, leaves, axes)
    return Derivation(leaves, axes, tuple(said), spec, group_of, _warnings(trace, unruled, used))


def _apply(found: Any, op: Op, call: Call, argument: Any, leaves: Leaves) -> Semantics:
    try:
        semantics = found(call, *map(argument, op.args), **{k: argument(v) for k, v in op.kwargs.items()})
        for left, right in semantics.equal:
            leaves.equate(left, right, f"{op.name} in {op.module or 'the network'}")
    except (ValueError, TypeError, IndexError) as e:
        raise MetanetError(f"the rule for {op.name} failed on {op.args}, {op.kwargs} in {op.module!r}: {e}") from e
    for expr, reason in semantics.pins:
        leaves.fix(expr, f"{reason} ({op.name} in {op.module or 'the network'})")
    return semantics


def _varies(tensor: Tensor, axis: int) -> bool:
    if tensor.shape[axis] <= 1:
        return False
    first = tensor.narrow(axis, 0, 1)
    return not torch.equal(tensor, first.expand_as(tensor)) and not torch.equal(
        torch.nan_to_num(tensor), torch.nan_to_num(first).expand_as(tensor)
    )


def _name_groups(
    trace: Trace, leaves: Leaves, axes: dict[int, tuple[Expr, ...]]
) -> tuple[SymmetrySpec, dict[int, str]]:
    """Groups are named after the first tensor they are the leading axis of: the layer that makes the neurons."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for leading in (True, False):
        for tensor, number in trace.parameters.items():
            for position, expr in enumerate(axes[number]):
                if leading and (position or len(axes[number]) < 2):
                    continue
                for root in leaves.expand(expr):
                    if leaves.reason(root) is None and root not in names:
                        stem = tensor.rpartition(".")[0] or tensor
                        name, n = stem, 1
                        while name in taken:
                            n += 1
                            name = f"{stem}#{n}"
                        taken.add(name)
                        names[root] = name
    derivation = Derivation(leaves, axes, (), SymmetrySpec((), {}), names, ())
    tensors = {}
    order: dict[str, int] = {}
    for tensor, number in trace.parameters.items():
        tensors[tensor] = TensorAxes(
            shape=trace.values[number].shape,
            dtype=trace.values[number].dtype,
            axes=tuple(derivation.axis(e) for e in axes[number]),
            tied_to=next((n for n in trace.values[number].names[:1] if n != tensor), None),
        )
        for expr in axes[number]:
            for root in leaves.expand(expr):
                if root in names:
                    order.setdefault(names[root], leaves.size((root,)))
    return SymmetrySpec(tuple(Group(name=n, size=s) for n, s in order.items()), tensors), names


def _warnings(trace: Trace, unruled: dict[str, list[Op]], used: set[int]) -> tuple[str, ...]:
    out = list(trace.warnings)
    for name, ops in unruled.items():
        touched = sorted({n for op in ops for v in op.inputs() for n in trace.values[v].names})
        tensors = f" (directly: {', '.join(touched[:3])}{', ...' if len(touched) > 3 else ''})" if touched else ""
        out.append(
            f"{name} has no rule: the axes it touches stay fixed{tensors}.\n"
            "  Sound, but some neurons cannot be relabelled. Add a rule: metanet/symmetry/rules/, one function."
        )
    unread = [n for n, number in trace.parameters.items() if number not in used]
    if unread:
        out.append(f"the example inputs did not read {len(unread)} tensors, which stay fixed: {', '.join(unread[:5])}")
    for number in trace.inputs:
        value = trace.values[number]
        if value.shape and value.shape[0] == 1:
            out.append(
                f"an example input has shape {value.shape}: use a batch of 2 or more, or sizes of 1 may look free"
            )
    return tuple(out)
