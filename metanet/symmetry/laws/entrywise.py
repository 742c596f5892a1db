"""Laws of operations that act entry by entry."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .._charges import SCALE, SIGN, ZERO, Form, part, power
from .._laws import Axes, Flow, Step, law


@law("aten.add", "aten.sub", "aten.rsub", blank=True)
def add(step: Step, a: Any, b: Any, *_: Any, **__: Any) -> list[Axes | None]:
    """All terms have the same charges."""
    step.zero = all(isinstance(x, Flow) and x.nothing for x in (a, b))
    out = step.agree((a, b))
    if all(isinstance(x, Flow) and x.data and not x.nothing for x in (a, b)):
        step.balance.sums.extend(axis for axis in out if axis)
    return [out]


@law("aten.mul", blank=True)
def mul(step: Step, a: Any, b: Any) -> list[Axes | None]:
    """Charges add up."""
    step.zero = any(isinstance(x, Flow) and x.nothing for x in (a, b))
    if step.zero:
        return [None]
    if isinstance(a, Flow) and isinstance(b, Flow) and a.data and b.data:
        pairs = zip(step.aligned(a), step.aligned(b), strict=True)
        step.balance.reads.extend(x for x, y in pairs if x and y)  # which may cancel
    return [step.product(a, b)]


@law("aten.div", "aten.true_divide")
def div(step: Step, a: Any, b: Any, *, rounding_mode: str | None = None) -> list[Axes | None]:
    """Those of the divisor are taken away."""
    if rounding_mode is not None:
        step.pin(a, b)
        return [None]
    return [step.product(a, b, -1)]


@law("aten.where")
def where(step: Step, condition: Flow, *choices: Any) -> list[Axes | None]:
    """Both choices have the same charges."""
    step.pin(condition)
    return [step.agree(choices) if choices else None]


@law("aten.masked_fill")
def masked_fill(step: Step, x: Flow, mask: Flow, value: Any) -> list[Axes | None]:
    """Only zeros have every charge."""
    step.pin(mask)
    return [step.agree((x, value))]


@law("aten.maximum", "aten.minimum")
def larger(step: Step, a: Flow, b: Flow) -> list[Axes | None]:
    """Positive factors leave their order alone."""
    step.pin(a, b, kind=SIGN)
    return [step.agree((a, b))]


@law("aten.lerp")
def lerp(step: Step, a: Flow, b: Flow, weight: Any) -> list[Axes | None]:
    """A weighted mean."""
    step.pin(weight)
    out = step.agree((a, b))
    step.balance.sums.extend(axis for axis in out if axis and a.data and b.data)
    return [out]


def _unary(step: Step, x: Flow, keep: Callable[[Form], Form], *pinned: int) -> list[Axes | None]:
    for kind in pinned:
        step.pin(x, kind=kind)
    return [tuple(step.balance.mapped(axis, keep) for axis in x.axes)]


@law(
    "aten.neg",
    "aten.real",
    "aten.imag",
    "aten.conj",
    "aten._conj",
    "aten._neg_view",
    "aten.positive",
    "aten.conj_physical",
    "aten.native_dropout",
)
def linear(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """Linear entry by entry."""
    return [x.axes]


@law("aten.complex")
def from_parts(step: Step, real: Flow, imaginary: Flow) -> list[Axes | None]:
    """``real + i imaginary``: both parts have the same charges."""
    return [step.agree((real, imaginary))]


@law("aten.polar")
def from_length(step: Step, length: Flow, angle: Flow) -> list[Axes | None]:
    """Linear in the length, whose sign may be anything."""
    step.pin(angle)
    return [step.aligned(length)]


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
def odd(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """``f(-x) = -f(x)``."""
    return _unary(step, x, lambda f: part(f, SIGN), SCALE)


@law("aten.relu", "aten.leaky_relu")
def homogeneous(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """``f(s x) = s f(x)`` for positive s."""
    return _unary(step, x, lambda f: part(f, SCALE), SIGN)


@law("aten.prelu", "aten._prelu_kernel")
def prelu(step: Step, x: Flow, slope: Flow) -> list[Axes | None]:
    """The slopes stay as they are."""
    step.pin(slope)
    return homogeneous(step, x)


@law("aten.hardtanh", "aten.clamp", "aten.clamp_min")
def clamp(step: Step, x: Flow, low: Any = None, high: Any = None) -> list[Axes | None]:
    """Odd between opposite numbers, homogeneous from 0 on."""
    if step.name == "aten.hardtanh" and low is None:
        low, high = -1, 1
    numbers = [n for n in (low, high) if n is not None]
    if not all(isinstance(n, (int, float)) for n in numbers):
        step.pin(x, low, high)
        return [None]
    if low is not None and high is not None and low == -high:
        return odd(step, x)
    if all(n in (0, float("inf"), float("-inf")) for n in numbers):
        return homogeneous(step, x)
    step.pin(x)
    return [None]


@law("aten.cos", "aten.cosh")
def even(step: Step, x: Flow) -> list[Axes | None]:
    """``f(-x) = f(x)``."""
    step.balance.reads.extend(x.axes)
    return _unary(step, x, lambda f: ZERO, SCALE)


@law("aten.abs")
def absolute(step: Step, x: Flow) -> list[Axes | None]:
    """Even, and homogeneous."""
    step.balance.reads.extend(x.axes)
    return _unary(step, x, lambda f: part(f, SCALE))


@law("aten.sign", "aten.sgn")
def sign(step: Step, x: Flow) -> list[Axes | None]:
    """Odd, and blind to the size."""
    return _unary(step, x, lambda f: part(f, SIGN))


@law("aten.gt", "aten.lt", "aten.ge", "aten.le", "aten.eq", "aten.ne")
def compare(step: Step, a: Any, b: Any) -> None:
    """Against 0 only the sign matters, or not even that; the result has no charges."""
    if not isinstance(b, (int, float)) or b != 0:
        step.pin(a, b)
    elif step.name not in ("aten.eq", "aten.ne"):
        step.pin(a, kind=SIGN)


_POWERS: dict[str, Fraction | int] = {
    "aten.square": 2, "aten.sqrt": Fraction(1, 2), "aten.rsqrt": Fraction(-1, 2), "aten.reciprocal": -1,
}  # fmt: skip


@law("aten.square", "aten.sqrt", "aten.rsqrt", "aten.reciprocal", "aten.pow")
def powers(step: Step, x: Any, exponent: Any = None) -> list[Axes | None]:
    """``x ** k``."""
    k = _POWERS.get(step.name, exponent)
    if (
        not isinstance(x, Flow)
        or not isinstance(k, (int, float, Fraction))
        or k != k
        or abs(k) == float("inf")
    ):
        step.pin(x, exponent)
        return [None]
    k = Fraction(k)
    k = int(k) if k.denominator == 1 else k
    if k % 2 == 0:
        step.balance.reads.extend(x.axes)
    if isinstance(k, int):
        return _unary(step, x, lambda f: power(f, k))
    return _unary(step, x, lambda f: power(part(f, SCALE), k), SIGN)
