"""What attention needs besides products: softmax, and triangles as masks."""

from typing import Any

from .._flow import Follow
from .._operand import Operand
from .._operation import Call, Semantics, normal_axis, rule


@rule(
    "aten._softmax",
    "aten._log_softmax",
    "aten.softmax",
    "aten.log_softmax",
    "aten._safe_softmax",
    "aten._masked_softmax",
)
def softmax(call: Call, x: Operand, dim: int, *_: Any, **__: Any) -> Semantics:
    """Every item against the sum over all, which is a tensor without the axis."""
    others = tuple(e for a, e in enumerate(x) if a != normal_axis(dim, len(x)))
    return Semantics(
        outputs=(x.axes,),
        spaces=(others,),
        flow=(Follow(x, tuple(range(len(x)))),),
        function=call.function,
    )


@rule("aten.tril", "aten.triu")
def triangle(call: Call, x: Operand, *_: Any) -> Semantics:
    """Rows and columns are told apart by their numbers."""
    why = "a triangle is cut out along it"
    return Semantics(outputs=(x.axes,), pins=((x[-1], why), (x[-2], why)))
