"""Functions of single entries: activations, powers, and gates.

Their rule is that of everything entry-wise, so that only their laws differ.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import SCALE, SIGN, ZERO, Form, part, power
from .._flow import Gate
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axis, rule
from .pointwise import pointwise

# The names that PyTorch does not tag as pointwise.
rule(
    "aten.rrelu_with_noise",
    "aten.hardswish",
    "aten.log_sigmoid_forward",
    "aten.special_expit",
    "aten._prelu_kernel",
    "aten.prelu",
)(pointwise)


def _unary(
    call: ChargedCall, x: Charged, keep: Callable[[Form], Form], *pinned: int
) -> list[Axes | None]:
    for kind in pinned:
        call.pin(x, kind=kind)
    return [tuple(call.balance.mapped(axis, keep) for axis in x.axes)]


@law(
    "aten.tanh",
    "aten.sin",
    "aten.sinh",
    "aten.tan",
    "aten.atan",
    "aten.asin",
    "aten.asinh",
    "aten.atanh",
    "aten.erf",
    "aten.erfinv",
    "aten.trunc",
    "aten.softshrink",
    "aten.hardshrink",
)
def odd_charges(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """``f(-x) = -f(x)``."""
    return _unary(call, x, lambda f: part(f, SIGN), SCALE)


@law("aten.relu", "aten.leaky_relu")
def homogeneous_charges(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """``f(s x) = s f(x)`` for positive s."""
    return _unary(call, x, lambda f: part(f, SCALE), SIGN)


@law("aten.prelu", "aten._prelu_kernel")
def prelu_charges(call: ChargedCall, x: Charged, slope: Charged) -> list[Axes | None]:
    """The slopes stay as they are."""
    call.pin(slope)
    return homogeneous_charges(call, x)


@law("aten.hardtanh", "aten.clamp", "aten.clamp_min")
def clamp_charges(
    call: ChargedCall, x: Charged, low: Any = None, high: Any = None
) -> list[Axes | None]:
    """Odd between opposite numbers, homogeneous from 0 on."""
    if call.name == "aten.hardtanh" and low is None:
        low, high = -1, 1
    numbers = [n for n in (low, high) if n is not None]
    if not all(isinstance(n, (int, float)) for n in numbers):
        call.pin(x, low, high)
        return [None]
    # clamp(-2, 2): odd; clamp(0) and clamp(0, inf): homogeneous; clamp(0, 6): neither
    if len(numbers) == 2 and low == -high:
        return odd_charges(call, x)
    if {abs(n) for n in numbers} <= {0, float("inf")}:
        return homogeneous_charges(call, x)
    call.pin(x)
    return [None]


@law("aten.cos", "aten.cosh")
def even_charges(call: ChargedCall, x: Charged) -> list[Axes | None]:
    """``f(-x) = f(x)``."""
    call.balance.reads.extend(x.axes)
    return _unary(call, x, lambda f: ZERO, SCALE)


@law("aten.abs")
def absolute_charges(call: ChargedCall, x: Charged) -> list[Axes | None]:
    """Even, and homogeneous."""
    call.balance.reads.extend(x.axes)
    return _unary(call, x, lambda f: part(f, SCALE))


@law("aten.sign", "aten.sgn")
def sign_charges(call: ChargedCall, x: Charged) -> list[Axes | None]:
    """Odd, and blind to the size."""
    return _unary(call, x, lambda f: part(f, SIGN))


_POWERS: dict[str, Fraction | int] = {
    "aten.square": 2,
    "aten.sqrt": Fraction(1, 2),
    "aten.rsqrt": Fraction(-1, 2),
    "aten.reciprocal": -1,
}


@law("aten.square", "aten.sqrt", "aten.rsqrt", "aten.reciprocal", "aten.pow")
def powers_charges(call: ChargedCall, x: Any, exponent: Any = None) -> list[Axes | None]:
    """``x ** k``."""
    k = _POWERS.get(call.name, exponent)
    if (
        not isinstance(x, Charged)
        or not isinstance(k, (int, float, Fraction))
        or k != k
        or abs(k) == float("inf")
    ):
        call.pin(x, exponent)
        return [None]
    k = Fraction(k)
    k = int(k) if k.denominator == 1 else k
    if k % 2 == 0:
        call.balance.reads.extend(x.axes)
    if isinstance(k, int):
        return _unary(call, x, lambda f: power(f, k))
    return _unary(call, x, lambda f: power(part(f, SCALE), k), SIGN)


@rule("aten.glu")
def glu(call: Call, x: Operand, dim: int = -1) -> Semantics:
    """The first half of an axis, gated by the second."""
    dim = normal_axis(dim, len(x))
    half = call.fresh(x.shape[dim] // 2)
    out = x.replaced(dim, half)
    halves = (x[dim], call.concat(half, half))
    return Semantics(outputs=(out,), equal=(halves,), flow=(Gate(x, dim),))


@law("aten.glu")
def glu_charges(call: ChargedCall, x: Charged, dim: int = -1) -> list[Axes | None]:
    """The first half of an axis is the second's to gate."""
    dim = normal_axis(dim, len(x))
    half = x.shape[dim] // 2
    gate = call.stretch(x, dim, half, 2 * half)
    for axis in gate:
        call.balance.pin(axis)
    return [call.stretch(x, dim, 0, half)]
