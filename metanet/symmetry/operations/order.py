"""Operations that tell items apart by their order, in the axis or by size."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axis, rule


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
    dims = kwargs.get("dims", kwargs.get("dim", args[-1] if args else None))
    if call.name == "aten.roll":
        dims = args[1] if len(args) > 1 else kwargs.get("dims", [])
    elif args and call.name != "aten.flip":
        dims = args[0]
    chosen = [dims] if isinstance(dims, int) else list(dims) if dims else list(range(len(x)))
    moved = {normal_axis(d, len(x)) for d in chosen}
    # New axes: item i of the result is no longer item i, which matters to what is keyed by it.
    axes = tuple(call.fresh(x.shape[a]) if a in moved else e for a, e in enumerate(x))
    pins = tuple((e, "the order of its items matters") for a in moved for e in (x[a], axes[a]))
    return Semantics(outputs=(axes,) * len(call.shapes), pins=pins)


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
    numbers = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    return _ranked(call, x, normal_axis(numbers[0] if numbers else dim, len(x)))


def _ranked(call: Call, x: Operand, dim: int) -> Semantics:
    rank = call.fresh((call.shapes[0] or ())[dim] if call.shapes[0] else 1)
    axes = (*x.axes[:dim], rank, *x.axes[dim + 1 :]) if len(x) else ()
    label = x[dim] if len(x) else ()
    pins = ((rank, "its items are ranked by size"), *call.ties(x, label), *call.as_numbers(x))
    return Semantics(outputs=(axes, axes), pins=pins, labels=(None, label))


@rule("aten.argmax", "aten.argmin")
def argmax(call: Call, x: Operand, dim: int | None = None, keepdim: bool = False) -> Semantics:
    """Integers that name the largest item of an axis."""
    if dim is None:
        label = sum(x.axes, ())
        pins = call.ties(x, label) + call.as_numbers(x)
        return Semantics(outputs=(((),) * len(call.shapes[0] or ()),), pins=pins, labels=(label,))
    dim = normal_axis(dim, len(x))
    axes = tuple(() if a == dim else e for a, e in enumerate(x) if keepdim or a != dim)
    return Semantics(
        outputs=(axes,), pins=call.ties(x, x[dim]) + call.as_numbers(x), labels=(x[dim],)
    )


@rule("aten.isin", "aten.bucketize", "aten.searchsorted")
def among(call: Call, x: Any, others: Any, *_: Any, **__: Any) -> Semantics | None:
    """Every entry of one tensor against all of another."""
    if call.name == "aten.searchsorted":
        x, others = others, x
    if not isinstance(x, Operand) or (isinstance(others, Operand) and len(others) > 1):
        return None
    # the other's items are compared by their values: in what order they stand matters only where
    # they are sorted
    pins = (
        tuple((e, "its items are sorted") for e in others.axes)
        if isinstance(others, Operand)
        else ()
    )
    return Semantics(outputs=(x.axes,), pins=pins)
