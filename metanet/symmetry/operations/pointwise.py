"""Entry-wise operations: every output entry depends on the aligned entries of the operands.

Arithmetic stands here, functions of one operand in ``activation.py``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import SIGN
from .._flow import Join, Rearrange
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Equal, Semantics, law, rule

_HOW = {
    "aten.add": "add",
    "aten.sub": "add",
    "aten.rsub": "add",
    "aten.mul": "multiply",
    "aten.div": "multiply",
}


def broadcast(
    call: Call, operands: Sequence[Operand], shape: tuple[int, ...]
) -> tuple[tuple[Expr, ...], Equal]:
    """Axes of the broadcast of all operands to a shape, and the equations between those that have
    the full size."""
    axes: list[Expr] = []
    equal: list[tuple[Expr, Expr]] = []
    for back, size in zip(range(len(shape), 0, -1), shape, strict=True):
        full = [o[-back] for o in operands if o.full_size(back, size)]
        axes.append(full[0] if full else call.wild(size))
        equal += [(full[0], other) for other in full[1:]]
    return tuple(axes), tuple(equal)


# Everything that PyTorch tags as pointwise goes by the first name; the others lack the tag.
@rule(
    "pointwise",
    "aten.where",
    "aten.masked_fill",
    "aten.bernoulli",
    "aten.rsub",
    "aten.floor_divide",
    "aten.true_divide",
    "aten.isfinite",
)
def pointwise(call: Call, *args: Any, **kwargs: Any) -> Semantics:
    """Everything that acts entry by entry, with broadcasting from the right."""
    operands = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Operand))
    axes, equal = broadcast(call, operands, call.shape)
    how = _HOW.get(call.name, "other")
    return Semantics(
        outputs=(axes,) * len(call.shapes),
        equal=equal,
        flow=(Join(operands, how),),
        function=call.function if len(operands) == 1 else "",
    )


@rule("aten.native_dropout")
def dropout(call: Call, x: Operand, *args: Any) -> Semantics:
    """Off while a network is looked at, it passes everything on."""
    said = pointwise(call, x, *args)
    return replace(said, flow=(*said.flow, Rearrange(x, "same")))


@law("aten.add", "aten.sub", "aten.rsub", blank=True)
def add_charges(call: ChargedCall, a: Any, b: Any, *_: Any, **__: Any) -> list[Axes | None]:
    """All terms have the same charges."""
    out = call.agree((a, b))
    if isinstance(a, Charged) and isinstance(b, Charged):
        call.zero = a.nothing and b.nothing
        if a.is_result and b.is_result:
            call.balance.sums.extend(filter(None, out))
    return [out]


@law("aten.mul", blank=True)
def mul_charges(call: ChargedCall, a: Any, b: Any) -> list[Axes | None]:
    """Charges add up."""
    tensors = [x for x in (a, b) if isinstance(x, Charged)]
    call.zero = any(x.nothing for x in tensors)
    if call.zero:
        return [None]
    is_gate = len(tensors) == 2 and all(x.data for x in tensors)
    if is_gate:  # where both have charges these may cancel
        for one, other in zip(call.aligned(a), call.aligned(b), strict=True):
            if one and other:
                call.balance.reads.append(one)
    return [call.product(a, b)]


@law("aten.div", "aten.true_divide")
def div_charges(
    call: ChargedCall, a: Any, b: Any, *, rounding_mode: str | None = None
) -> list[Axes | None]:
    """Those of the divisor are taken away."""
    if rounding_mode is not None:
        call.pin(a, b)
        return [None]
    return [call.product(a, b, -1)]


@law("aten.where")
def where_charges(call: ChargedCall, condition: Charged, *choices: Any) -> list[Axes | None]:
    """Both choices have the same charges."""
    call.pin(condition)
    return [call.agree(choices) if choices else None]


@law("aten.masked_fill")
def masked_fill_charges(
    call: ChargedCall, x: Charged, mask: Charged, value: Any
) -> list[Axes | None]:
    """Only zeros have every charge."""
    call.pin(mask)
    return [call.agree((x, value))]


@law("aten.maximum", "aten.minimum")
def larger_charges(call: ChargedCall, a: Charged, b: Charged) -> list[Axes | None]:
    """Positive factors leave their order alone."""
    call.pin(a, b, kind=SIGN)
    return [call.agree((a, b))]


@law("aten.lerp")
def lerp_charges(call: ChargedCall, a: Charged, b: Charged, weight: Any) -> list[Axes | None]:
    """A weighted mean."""
    call.pin(weight)
    out = call.agree((a, b))
    if a.data and b.data:
        call.balance.sums.extend(filter(None, out))
    return [out]


@law("aten.gt", "aten.lt", "aten.ge", "aten.le", "aten.eq", "aten.ne")
def compare_charges(call: ChargedCall, a: Any, b: Any) -> None:
    """Against 0 only the sign matters, or not even that; the result has no charges."""
    if isinstance(b, Charged) or b != 0:
        call.pin(a, b)
    elif call.name not in ("aten.eq", "aten.ne"):
        call.pin(a, kind=SIGN)


@law("aten.neg", "aten.positive", "aten.native_dropout")
def signed_charges(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """Linear entry by entry."""
    return [x.axes]
