"""Entry-wise operations: every output entry depends on the aligned entries of the operands."""

from typing import Any

from .._leaves import Expr
from .._semantics import Call, Join, Operand, Semantics, rule

_ADDS = {"aten.add", "aten.sub", "aten.rsub"}
_MULTIPLIES = {"aten.mul", "aten.div"}


def broadcast(
    call: Call, operands: tuple[Operand, ...]
) -> tuple[tuple[Expr, ...], tuple[tuple[Expr, Expr], ...]]:
    """Axes of the broadcast of all operands, and the equations between those that have the full
    size."""
    shape = call.shapes[0] or ()
    axes: list[Expr] = []
    equal: list[tuple[Expr, Expr]] = []
    for back in range(len(shape), 0, -1):
        full = [o[-back] for o in operands if len(o) >= back and o.shape[-back] == shape[-back]]
        axes.append(full[0] if full else call.wild(shape[-back]))
        equal += [(full[0], other) for other in full[1:]]
    return tuple(axes), tuple(equal)


# Everything that PyTorch tags as pointwise goes by the first name; the others lack the tag.
@rule(
    "pointwise", "aten.where", "aten.native_dropout", "aten.masked_fill", "aten.bernoulli", "aten.rrelu_with_noise",
    "aten.hardswish", "aten.log_sigmoid_forward", "aten.polar", "aten.complex", "aten.real", "aten.imag", "aten.conj",
    "aten._conj", "aten.special_expit", "aten._prelu_kernel", "aten.prelu", "aten.rsub", "aten.floor_divide",
    "aten.true_divide", "aten.conj_physical", "aten.isfinite",
)  # fmt: skip
def pointwise(call: Call, *args: Any, **kwargs: Any) -> Semantics:
    """Everything that acts entry by entry, with broadcasting from the right."""
    operands = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Operand))
    axes, equal = broadcast(call, operands)
    how = "add" if call.name in _ADDS else "multiply" if call.name in _MULTIPLIES else "other"
    return Semantics(outputs=(axes,) * len(call.shapes), equal=equal, flow=(Join(operands, how),))
