"""Tensors put one behind the other, or something put around them."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall, first_of
from .._charges import ChargedStretch, Charges, Tab
from .._flow import Concatenate, Pad, Rearrange
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Pins, Semantics, law, normal_axis, pinned, rule
from .._wild import has_wild
from .order import stays


@rule("aten.cat", "aten.concat")
def cat(call: Call, tensors: list[Operand], dim: int = 0) -> Semantics:
    """Stretches one behind the other; all other axes list the same items."""
    tensors = [t for t in tensors if t.shape != (0,)]
    first = tensors[0]
    dim = normal_axis(dim, len(first))
    parts = [t[dim] for t in tensors if t.shape[dim] > 0]
    joined, pins = _one_behind_the_other(call, parts, call.shape[dim])
    equal: list[tuple[Expr, Expr]] = []
    for other in tensors[1:]:
        equal += zip(first.replaced(dim), other.replaced(dim), strict=True)
    return Semantics(
        outputs=(first.replaced(dim, joined),),
        equal=tuple(equal),
        pins=pins + call.as_numbers(*tensors),
        labels=(None,),
        moves=True,
        flow=(Concatenate(tuple(tensors), dim),),
    )


def _one_behind_the_other(call: Call, parts: list[Expr], size: int) -> tuple[Expr, Pins]:
    """An axis of several parts; where all are fixed it need not be told what it is made of."""
    reasons = [call.leaves.inert(part) for part in parts]
    if parts and None in reasons:
        return call.concat(*parts), ()
    joined = call.fresh(size)
    why = next(filter(None, reasons), "tensors are stacked along it")
    return joined, ((joined, why),)


@law("aten.cat", "aten.concat", blank=True)
def cat_charges(call: ChargedCall, tensors: list[Charged], dim: int = 0) -> list[Axes | None]:
    """Every part keeps its charges, and all agree in the other axes."""
    balance = call.balance
    tensors = [t for t in tensors if t.shape != (0,)]
    call.zero = all(t.nothing for t in tensors)
    if not any(t.charged for t in tensors):
        return [None]
    dim = normal_axis(dim, len(tensors[0]))
    stretches: list[ChargedStretch] = []
    for t in tensors:
        size = t.shape[dim]
        if size:
            stretches += balance.stretches(call.whole(t, dim), size)
    joined = balance.joined(call.like()[dim], stretches)
    if joined is None:
        call.pin(*tensors)
        return [None]
    out = [_agreed(call, tensors, a) if a != dim else joined for a in range(len(tensors[0]))]
    call.drop_dependent(out, dim, stretches)
    return [tuple(out)]


def _agreed(call: ChargedCall, tensors: list[Charged], axis: int) -> Charges:
    """An axis that several tensors have in common; those that are 0 everywhere agree to all."""
    axes = [t[axis] for t in tensors if not t.nothing]
    call.balance.all_equal(axes)
    return first_of(axes)


@rule("aten.stack")
def stack(call: Call, tensors: list[Operand], dim: int = 0) -> Semantics:
    """A new axis with one place for each tensor. Their axes list the same items, or other items at
    every place."""
    dim = normal_axis(dim, len(tensors[0]) + 1)
    columns = list(zip(*tensors, strict=True))
    apart = [_own_items(call, column) for column in columns]
    pins: Pins = ()
    if any(apart):
        new = call.concat(*((),) * len(tensors))
    else:
        new = call.fresh(len(tensors))
        pins = ((new, "tensors are stacked along it"),)
    out: list[Expr] = []
    equal: list[tuple[Expr, Expr]] = []
    for column, has_own in zip(columns, apart, strict=True):
        if has_own:
            out.append(call.leaves.table(new[0], column))
        else:
            out.append(column[0])
            equal += [(column[0], other) for other in column[1:]]
    out.insert(dim, new)
    return Semantics(
        outputs=(tuple(out),),
        equal=tuple(equal),
        pins=pins + call.as_numbers(*tensors),
        labels=(None,),
        moves=True,
        flow=(Concatenate(tuple(tensors), dim, stacked=True),),
    )


def _own_items(call: Call, axes: tuple[Expr, ...]) -> bool:
    """Whether axes that are stacked list items of their own, all of which may move."""
    leaves = call.leaves
    expanded = set(map(leaves.expand, axes))
    if len(expanded) == 1:
        return False
    if any(has_wild(leaves, axis) for axis in axes):
        return False
    reasons = list(map(leaves.inert, axes))
    return all(reason is None for reason in reasons)


@law("aten.stack", blank=True)
def stack_charges(call: ChargedCall, tensors: list[Charged], dim: int = 0) -> list[Axes | None]:
    """All agree in their axes, or have their own at every place of the new one."""
    call.zero = all(t.nothing for t in tensors)
    if not any(t.charged for t in tensors):
        return [None]
    like = list(call.like())
    dim = normal_axis(dim, len(like))
    new = like.pop(dim)
    out = [_stacked(call, axis, tensors, a) for a, axis in enumerate(like)]
    out.insert(dim, new)
    return [tuple(out)]


def _stacked(call: ChargedCall, like: Charges, tensors: list[Charged], axis: int) -> Charges:
    """One axis of a stack: a table of what its tensors have, or what they agree to."""
    balance = call.balance
    axes = [call.whole(t, axis) for t in tensors]
    table = like[0] if len(like) == 1 else None
    if isinstance(table, Tab) and all(map(balance.alike, table.parts, axes)):
        entries = map(balance.filled, table.parts, axes)
        return (table._replace(parts=tuple(entries)),)
    alike = [charges for charges, t in zip(axes, tensors, strict=True) if not t.nothing]
    balance.all_equal(alike)
    return alike[0] if alike else ()


@rule("aten.constant_pad_nd")
def constant_pad(call: Call, x: Operand, pad: list[int], *_: Any) -> Semantics | None:
    """What is put around an axis is the same everywhere."""
    axes = list(x.axes)
    pins: list[tuple[Expr, str]] = []
    padded = list(reversed(list(zip(pad[::2], pad[1::2], strict=True))))  # of the last axes
    around = [(0, 0)] * (len(x) - len(padded)) + padded
    for axis, (before, after) in reversed(list(enumerate(around))):
        if not before and not after:
            continue
        if call.leaves.inert(x[axis]) is not None:
            axes[axis] = call.fresh(call.shape[axis])
            pins.append((axes[axis], "it is padded"))
        elif before < 0 or after < 0:  # it cuts off items that may move
            return None
        else:
            sizes = (before, x.shape[axis], after)
            parts = (call.wild(before), x[axis], call.wild(after))
            axes[axis] = call.concat(*(p for p, n in zip(parts, sizes, strict=True) if n))
    return Semantics(outputs=(tuple(axes),), pins=tuple(pins), flow=(Pad(x, tuple(around)),))


@law("aten.constant_pad_nd")
def constant_pad_charges(
    call: ChargedCall, x: Charged, pad: list[int], value: Any = 0
) -> list[Axes | None]:
    """Zeros are put around an axis."""
    if value != 0:
        call.pin(x)
        return [None]
    out = list(x.axes)
    for a in {len(x) - 1 - i // 2 for i, n in enumerate(pad) if n}:
        call.balance.pin(out[a])
        out[a] = ()
    return [tuple(out)]


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
    lead = len(x) - len(pad) // 2
    positions = tuple(map(call.fresh, call.shape[lead:]))
    pins = pinned((*x.axes[lead:], *positions), "its borders are padded")
    out = (*x.axes[:lead], *positions)
    return Semantics(outputs=(out,), pins=pins, flow=(Rearrange(x, "copy"),))


law(
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.reflection_pad3d",
    "aten.replication_pad1d",
    "aten.replication_pad2d",
    "aten.replication_pad3d",
)(stays)
