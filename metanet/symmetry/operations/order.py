"""Operations that tell items apart by their order, in the axis or by size."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._flow import Choose, Flow, Rearrange
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axes, normal_axis, pinned, rule


@rule(
    "aten.flip",
    "aten.roll",
    "aten.cumsum",
    "aten.cumprod",
    "aten.logcumsumexp",
    "aten.cummax",
    "aten.cummin",
)
def in_order(call: Call, x: Operand, *args: Any, **kwargs: Any) -> Semantics:
    """The order of the items along some axes matters."""
    # flip(x, dims), roll(x, shifts, dims), cumsum(x, dim)
    place = 1 if call.name == "aten.roll" else 0
    dims = args[place] if len(args) > place else kwargs.get("dims", kwargs.get("dim"))
    moved = set(normal_axes(dims, len(x)))
    # New axes: item i of the result is no longer item i, which matters to what is keyed by it.
    axes = [call.fresh(x.shape[a]) if a in moved else axis for a, axis in enumerate(x)]
    touched = [axis for a in moved for axis in (x[a], axes[a])]
    only_moves = call.name in ("aten.flip", "aten.roll")
    flow: tuple[Flow, ...] = (Rearrange(x, "copy"),) if only_moves else ()
    return Semantics(
        outputs=(tuple(axes),) * len(call.shapes),
        pins=pinned(touched, "the order of its items matters"),
        flow=flow,
    )


@law("aten.flip", "aten.roll", "aten.cumsum")
def stays(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """Linear along axes that are fixed anyway."""
    return [x.axes]


@rule("aten.topk")
def topk(call: Call, x: Operand, k: int, dim: int = -1, *_: Any, **__: Any) -> Semantics:
    """The largest values along an axis, and integers that name where they were."""
    return _ranked(call, x, normal_axis(dim, len(x)))


@rule("aten.sort")
def sort(call: Call, x: Operand, *args: Any, dim: int = -1, **_: Any) -> Semantics:
    """Values by size, and integers that name where they were."""
    # sort(x, dim, descending), sort.stable(x, *, stable, dim, descending)
    numbers = [a for a in args if type(a) is int]
    if numbers:
        dim = numbers[0]
    return _ranked(call, x, normal_axis(dim, len(x)))


def _ranked(call: Call, x: Operand, dim: int) -> Semantics:
    """Values by rank along an axis, and integers that name its items."""
    if not len(x):
        pins = call.as_numbers(x)
        return Semantics(outputs=((), ()), pins=pins, labels=(None, ()), flow=(Choose(x),))
    rank, label = call.fresh(call.shape[dim]), x[dim]
    axes = x.replaced(dim, rank)
    pins = ((rank, "its items are ranked by size"), *call.ties(x, label), *call.as_numbers(x))
    return Semantics(outputs=(axes, axes), pins=pins, labels=(None, label), flow=(Choose(x),))


@rule("aten.argmax", "aten.argmin")
def argmax(call: Call, x: Operand, dim: int | None = None, keepdim: bool = False) -> Semantics:
    """Integers that name the largest item of an axis."""
    if dim is None:
        label: Expr = sum(x.axes, ())
        axes: tuple[Expr, ...] = ((),) * len(call.shape)
    else:
        dim = normal_axis(dim, len(x))
        label = x[dim]
        axes = x.replaced(dim, ()) if keepdim else x.replaced(dim)
    pins = call.ties(x, label) + call.as_numbers(x)
    return Semantics(outputs=(axes,), pins=pins, labels=(label,), flow=(Choose(x),))


@rule("aten.isin", "aten.bucketize", "aten.searchsorted")
def among(call: Call, x: Any, others: Any, *_: Any, **__: Any) -> Semantics | None:
    """Every entry of one tensor against all of another."""
    if call.name == "aten.searchsorted":
        x, others = others, x
    if not isinstance(x, Operand):
        return None
    if not isinstance(others, Operand):
        return Semantics(outputs=(x.axes,))
    if len(others) > 1:
        return None
    # the other's items are compared by their values: in what order they stand matters only where
    # they are sorted
    return Semantics(outputs=(x.axes,), pins=pinned(others, "its items are sorted"))
