"""Reductions over whole axes: the order of what is reduced does not matter."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import SCALE, SIGN, part, power
from .._flow import Choose, Flow, Follow, Total
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Pins, Semantics, law, normal_axes, normal_axis, pinned, rule
from .activation import absolute_charges

_NAMING = ("aten.max", "aten.min", "aten.median")  # and integers that name items
_CHOOSING = ("aten.max", "aten.min")
_TOTALS = ("aten.sum", "aten.mean")


def _reduced(
    x: Operand, dim: Any, keepdim: bool
) -> tuple[tuple[Expr, ...], tuple[int | None, ...]]:
    """The axes that are left, and which of the operand's each is (``None``: one of size 1)."""
    # (batch, h, w) over h: (batch, w), or (batch, 1, w) with keepdim
    gone = set(normal_axes(dim, len(x)))
    axes: list[Expr] = []
    of_operand: list[int | None] = []
    for a, axis in enumerate(x):
        if a not in gone:
            axes.append(axis)
            of_operand.append(a)
        elif keepdim:
            axes.append(())
            of_operand.append(None)
    return tuple(axes), tuple(of_operand)


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
    if args and args[-1] is True and len(call.shape) == len(x):
        keepdim = True
    axes, of_operand = _reduced(x, dim, keepdim)
    count = len(call.shapes)
    labels: tuple[Expr | None, ...] | None = (None,) * count
    pins: Pins = ()
    if call.name in _NAMING and isinstance(dim, int) and len(x):
        label = x[normal_axis(dim, len(x))]
        labels = (None, label)[:count]
        pins = call.ties(x, label)
    if x.label is not None:
        labels = None
    flow: tuple[Flow, ...] = (Follow(x, of_operand),)
    if call.name in _TOTALS:
        flow = (*flow, Total(x))
    if call.name in _CHOOSING:
        flow = (*flow, Choose(x))
    return Semantics(outputs=(axes,) * count, pins=pins, labels=labels, flow=flow)


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
    axes, of_operand = _reduced(x, dim, keepdim)
    return Semantics(outputs=(axes,), flow=(Follow(x, of_operand),))


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
    axes = x.axes if call.shape else ()
    if x.shape == target.shape:
        return Semantics(outputs=(axes,), equal=tuple(zip(x, target, strict=True)))
    touched = (*x.axes, *target.axes) if x.shape else ()
    return Semantics(outputs=(axes,), pins=pinned(touched, "a loss broadcasts it"))
