"""Reductions over whole axes: the order of what is reduced does not matter."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import SCALE, SIGN, part, power
from .._flow import Follow
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axes, normal_axis, rule
from .activation import absolute_charges


def _reduced(
    x: Operand, dim: Any, keepdim: bool
) -> tuple[tuple[Expr, ...], tuple[int | None, ...]]:
    gone = set(normal_axes(dim, len(x)))
    kept = tuple(None if a in gone else a for a in range(len(x)) if keepdim or a not in gone)
    return tuple(() if a is None else x[a] for a in kept), kept


@rule(
    "aten.mean",
    "aten.sum",
    "aten.amax",
    "aten.amin",
    "aten.logsumexp",
    "aten.prod",
    "aten.any",
    "aten.all",
    "aten.nansum",
    "aten.count_nonzero",
    "aten.var",
    "aten.std",
    "aten.var_mean",
    "aten.std_mean",
    "aten.max",
    "aten.min",
    "aten.median",
    "aten.aminmax",
    "aten._is_all_true",
    "aten._is_any_true",
)
def reduce(
    call: Call, x: Operand, dim: Any = None, *args: Any, keepdim: bool = False, **_: Any
) -> Semantics | None:
    """The axes disappear and stay free; integers that come out besides name items of the axis."""
    if isinstance(dim, Operand):  # aten.max of two tensors
        return None
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, args = None, (dim, *args)
    keepdim = keepdim or (bool(args) and args[-1] is True and len(call.shapes[0] or ()) == len(x))
    axes, kept = _reduced(x, dim, keepdim)
    label = x[normal_axis(dim, len(x))] if isinstance(dim, int) and len(x) else None
    named = call.name in ("aten.max", "aten.min", "aten.median")
    labels = tuple(label if named and i == 1 else None for i in range(len(call.shapes)))
    if x.label is not None:
        labels = None
    pins = call.ties(x, label) if named and label is not None else ()
    return Semantics(
        outputs=(axes,) * len(call.shapes), pins=pins, labels=labels, flow=(Follow(x, kept),)
    )


@law("aten.sum", "aten.mean")
def total_charges(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """What is summed over has no charges."""
    return [call.followed(x)]


@law("aten.amax", "aten.amin", "aten.max", "aten.min")
def largest_charges(call: ChargedCall, x: Charged, *args: Any, **__: Any) -> list[Axes | None]:
    """Positive factors leave their order alone."""
    call.pin(*args)
    call.pin(x, kind=SIGN)
    return [call.followed(x)]


@law("aten.var", "aten.std")
def variance_charges(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """Quadratic (or its root): blind to the sign of what is not summed over."""
    call.balance.reads.extend(x.axes)
    out = call.followed(x)
    if call.name == "aten.var":
        return [tuple(call.balance.mapped(axis, lambda f: power(f, 2)) for axis in out)]
    return [tuple(call.balance.mapped(axis, lambda f: part(f, SCALE)) for axis in out)]


@rule("aten.linalg_vector_norm", "aten.norm", "aten.linalg_norm")
def norm(
    call: Call, x: Operand, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any
) -> Semantics:
    """The length of vectors."""
    axes, kept = _reduced(x, dim, keepdim)
    return Semantics(outputs=(axes,), flow=(Follow(x, kept),))


@law("aten.linalg_vector_norm")
def norm_charges(
    call: ChargedCall, x: Charged, order: Any = 2, *_: Any, **__: Any
) -> list[Axes | None]:
    """Blind to signs, also of what is summed over."""
    if not isinstance(order, (int, float)) or order <= 0:
        call.pin(x)
        return [None]
    unsigned = Charged(x.value, x.shape, absolute_charges(call, x)[0] or (), x.dtype, x.data)
    return [call.followed(unsigned)]


@rule("aten.mse_loss", "aten.smooth_l1_loss", "aten.huber_loss")
def loss(call: Call, x: Operand, target: Operand, *_: Any, **__: Any) -> Semantics:
    """Entry by entry, then the mean over all."""
    equal = tuple(zip(x.axes, target.axes, strict=True)) if x.shape == target.shape else ()
    pins = (
        ()
        if equal or not x.shape
        else tuple((e, "a loss broadcasts it") for e in (*x.axes, *target.axes))
    )
    return Semantics(outputs=(x.axes if call.shapes[0] else (),), equal=equal, pins=pins)
