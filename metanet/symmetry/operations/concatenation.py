"""Tensors put one behind the other, or something put around them."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import Charges, Tab
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axis, rule
from .order import stays


@rule("aten.cat", "aten.concat")
def cat(call: Call, tensors: list[Operand], dim: int = 0) -> Semantics:
    """Stretches one behind the other; all other axes list the same items."""
    kept = [t for t in tensors if t.shape != (0,)]
    dim = normal_axis(dim, len(kept[0]))
    parts = [t[dim] for t in kept if t.shape[dim] > 0]
    why = [call.leaves.inert(p) for p in parts]
    if not parts or None not in why:
        joined = call.fresh((call.shapes[0] or ())[dim])
        pins = ((joined, next(filter(None, why), "tensors are stacked along it")),)
    else:
        joined, pins = call.concat(*parts), ()
    first = kept[0]
    equal = tuple((first[a], t[a]) for t in kept[1:] for a in range(len(first)) if a != dim)
    out = (*first.axes[:dim], joined, *first.axes[dim + 1 :])
    return Semantics(
        outputs=(out,), equal=equal, pins=pins + call.as_numbers(*kept), labels=(None,), moves=True
    )


@law("aten.cat", "aten.concat", blank=True)
def cat_charges(call: ChargedCall, tensors: list[Charged], dim: int = 0) -> list[Axes | None]:
    """Every part keeps its charges, and all agree in the other axes."""
    balance = call.balance
    kept = [t for t in tensors if t.shape != (0,)]
    call.zero = all(t.nothing for t in kept)
    if not any(any(t.axes) for t in kept):
        return [None]
    dim = normal_axis(dim, len(kept[0]))
    pieces = [
        p for t in kept for p in balance.pieces(call.whole(t, dim), t.shape[dim]) if t.shape[dim]
    ]
    joined = balance.joined(call.like()[dim], pieces)
    if joined is None:
        call.pin(*kept)
        return [None]
    keys = frozenset(key for p in pieces for key, _ in p.path)
    out: list[Charges] = []
    for a in range(len(kept[0])):
        given = [t[a] for t in kept if a != dim and not t.nothing]
        for other in given[1:]:
            balance.equal(given[0], other)
        out.append(next(filter(None, given), ()))
        if balance.depends(out[a], keys):
            balance.pin(out[a])
            out[a] = ()
    out[dim] = joined
    return [tuple(out)]


@rule("aten.stack")
def stack(call: Call, tensors: list[Operand], dim: int = 0) -> Semantics:
    """A new axis with one place for each tensor. Their axes list the same items, or other items at
    every place."""
    first = tensors[0]
    dim = normal_axis(dim, len(first) + 1)
    columns = list(zip(*tensors, strict=True))
    apart = [_own_items(call, column) for column in columns]
    if not any(apart):
        new = call.fresh(len(tensors))
        pins = ((new, "tensors are stacked along it"),)
    else:
        new, pins = call.concat(*((),) * len(tensors)), ()
    out = [
        call.leaves.table(new[0], c) if own else c[0] for c, own in zip(columns, apart, strict=True)
    ]
    out.insert(dim, new)
    equal = tuple(
        (c[0], e) for c, own in zip(columns, apart, strict=True) if not own for e in c[1:]
    )
    return Semantics(
        outputs=(tuple(out),),
        equal=equal,
        pins=pins + call.as_numbers(*tensors),
        labels=(None,),
        moves=True,
    )


def _own_items(call: Call, axes: tuple[Expr, ...]) -> bool:
    """Whether axes that are stacked list items of their own, all of which may move."""
    leaves = call.leaves
    if len(set(map(leaves.expand, axes))) == 1:
        return False
    return not any(
        leaves.inert(e) is not None or any(map(leaves.has_wild, leaves.expand(e))) for e in axes
    )


@law("aten.stack", blank=True)
def stack_charges(call: ChargedCall, tensors: list[Charged], dim: int = 0) -> list[Axes | None]:
    """All agree in their axes, or have their own at every place of the new one."""
    call.zero = all(t.nothing for t in tensors)
    if not any(t.charged for t in tensors):
        return [None]
    dim, like = normal_axis(dim, len(tensors[0]) + 1), call.like()
    out = [
        _stacked(call, like[a if a < dim else a + 1], tensors, a) for a in range(len(tensors[0]))
    ]
    out.insert(dim, like[dim])
    return [tuple(out)]


def _stacked(call: ChargedCall, like: Charges, tensors: list[Charged], axis: int) -> Charges:
    balance = call.balance
    axes = [call.whole(t, axis) for t in tensors]
    if (
        len(like) == 1
        and isinstance(like[0], Tab)
        and all(map(balance.alike, like[0].entries, axes))
    ):
        entries = tuple(map(balance.filled, like[0].entries, axes))
        return (like[0]._replace(entries=entries),)
    given = [a for a, t in zip(axes, tensors, strict=True) if not t.nothing]
    for other in given[1:]:
        balance.equal(given[0], other)
    return given[0] if given else ()


@rule("aten.constant_pad_nd")
def constant_pad(call: Call, x: Operand, pad: list[int], *_: Any) -> Semantics | None:
    """What is put around an axis is the same everywhere."""
    axes, pins = list(x.axes), []
    for i in range(len(pad) // 2):
        axis, before, after = len(x) - 1 - i, pad[2 * i], pad[2 * i + 1]
        if not before and not after:
            continue
        if call.leaves.inert(x[axis]) is not None:
            axes[axis] = call.fresh(x.shape[axis] + before + after)
            pins.append((axes[axis], "it is padded"))
            continue
        if before < 0 or after < 0:  # it cuts off items that may move
            return None
        around = [call.wild(n) if n else () for n in (before, after)]
        parts = [
            e for e, n in ((around[0], before), (x[axis], x.shape[axis]), (around[1], after)) if n
        ]
        axes[axis] = call.concat(*parts)
    return Semantics(outputs=(tuple(axes),), pins=tuple(pins))


@law("aten.constant_pad_nd")
def constant_pad_charges(
    call: ChargedCall, x: Charged, pad: list[int], value: Any = 0
) -> list[Axes | None]:
    """Zeros are put around an axis."""
    padded = {len(x) - 1 - i // 2 for i, n in enumerate(pad) if n}
    for a in range(len(x)):
        if value != 0 or a in padded:
            call.balance.pin(x[a])
    return [tuple(() if value != 0 or a in padded else x[a] for a in range(len(x)))]


@rule(
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.reflection_pad3d",
    "aten.replication_pad1d",
    "aten.replication_pad2d",
    "aten.replication_pad3d",
)
def border_pad(call: Call, x: Operand, pad: list[int]) -> Semantics:
    """Positions are repeated at the borders of the trailing axes."""
    axes, pins = list(x.axes), []
    for i in range(len(pad) // 2):
        axis = len(x) - 1 - i
        axes[axis] = call.fresh((call.shapes[0] or ())[axis])
        pins += [(x[axis], "its borders are padded"), (axes[axis], "its borders are padded")]
    return Semantics(outputs=(tuple(axes),), pins=tuple(pins))


law(
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.reflection_pad3d",
    "aten.replication_pad1d",
    "aten.replication_pad2d",
    "aten.replication_pad3d",
)(stays)
