"""Operations that take a stretch of an axis, or put stretches one behind the other."""

from typing import Any

from .._leaves import Expr
from .._semantics import Call, Follow, Operand, Semantics, Take, normal_axis, rule


def _bounds(start: int | None, stop: int | None, n: int) -> tuple[int, int]:
    """Start and end of a slice, as positions within the axis."""
    first, last, _ = slice(start, stop).indices(n)
    return first, max(first, last)


@rule("aten.slice", "aten.slice_copy")
def slice_(
    call: Call,
    x: Operand,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Semantics:
    """A stretch of an axis; a full slice is the tensor itself."""
    dim = normal_axis(dim, len(x))
    n = x.shape[dim]
    first, last = _bounds(start, end, n)
    kept = tuple(a if a != dim else None for a in range(len(x)))
    if (first, last, step) == (0, n, 1):
        return Semantics(outputs=(x.axes,), moves=True, flow=(Follow(x, tuple(range(len(x)))),))
    return Semantics(
        outputs=(Take(x, dim, first, last, step),), moves=True, flow=(Follow(x, kept),)
    )


@rule("aten.select", "aten.select_copy")
def select(call: Call, x: Operand, dim: int, at: int) -> Semantics:
    """One item of an axis, which goes."""
    dim = normal_axis(dim, len(x))
    at = at + x.shape[dim] if at < 0 else at
    kept = tuple(a for a in range(len(x)) if a != dim)
    return Semantics(
        outputs=(Take(x, dim, at, at + 1, drop=True),), moves=True, flow=(Follow(x, kept),)
    )


@rule("aten.unbind", "aten.unbind_copy")
def unbind(call: Call, x: Operand, dim: int = 0) -> Semantics:
    """Every item of an axis on its own."""
    dim = normal_axis(dim, len(x))
    return Semantics(
        outputs=tuple(Take(x, dim, i, i + 1, drop=True) for i in range(len(call.shapes))),
        moves=True,
    )


@rule(
    "aten.split", "aten.split_with_sizes", "aten.unsafe_split", "aten.unsafe_split_with_sizes", "aten.split_copy",
    "aten.split_with_sizes_copy",
)  # fmt: skip
def split(call: Call, x: Operand, sizes: int | list[int], dim: int = 0) -> Semantics:
    """An axis in consecutive stretches."""
    dim = normal_axis(dim, len(x))
    n = x.shape[dim]
    lengths = [sizes] * len(call.shapes) if isinstance(sizes, int) else sizes
    ends = [min(n, sum(lengths[: i + 1])) for i in range(len(call.shapes))]
    return Semantics(
        outputs=tuple(Take(x, dim, a, b) for a, b in zip([0, *ends], ends, strict=False)),
        moves=True,
    )


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


@rule(
    "aten.reflection_pad1d", "aten.reflection_pad2d", "aten.reflection_pad3d", "aten.replication_pad1d",
    "aten.replication_pad2d", "aten.replication_pad3d",
)  # fmt: skip
def border_pad(call: Call, x: Operand, pad: list[int]) -> Semantics:
    """Positions are repeated at the borders of the trailing axes."""
    axes, pins = list(x.axes), []
    for i in range(len(pad) // 2):
        axis = len(x) - 1 - i
        axes[axis] = call.fresh((call.shapes[0] or ())[axis])
        pins += [(x[axis], "its borders are padded"), (axes[axis], "its borders are padded")]
    return Semantics(outputs=(tuple(axes),), pins=tuple(pins))


def _write(
    call: Call,
    x: Operand,
    source: Operand,
    dim: int,
    start: int,
    stop: int,
    middle: Expr,
    others: Any,
) -> Semantics:
    """A stretch of an axis is replaced: what lies before and behind it stays."""
    n, numbers = x.shape[dim], call.as_numbers(x, source)
    before, after = (call.fresh(m) if m else () for m in (start, n - stop))
    old = call.fresh(stop - start)

    def around(inside: Expr) -> Expr:
        parts = [e for e, m in ((before, start), (inside, stop - start), (after, n - stop)) if m]
        return call.concat(*parts)

    if call.leaves.inert(x[dim]) is not None:
        out, equal = x[dim], ((x[dim], around(middle)),)
    else:
        out, equal = around(middle), ((x[dim], around(old)),)
    axes = (*x.axes[:dim], out, *x.axes[dim + 1 :])
    return Semantics(outputs=(axes,), equal=(*equal, *others), pins=numbers, labels=(None,))


@rule("aten.slice_scatter")
def slice_scatter(
    call: Call, x: Operand, source: Operand, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Semantics:  # fmt: skip
    """A stretch of an axis is overwritten."""
    dim = normal_axis(dim, len(x))
    first, last = _bounds(start, end, x.shape[dim])
    others = tuple((x[a], source[a]) for a in range(len(x)) if a != dim)
    if step != 1:
        why = "every so many items are overwritten"
        pins = ((x[dim], why), (source[dim], why))
        return Semantics(
            outputs=(x.axes,), equal=others, pins=pins + call.as_numbers(x, source), labels=(None,)
        )
    if (first, last) == (0, x.shape[dim]):
        return Semantics(outputs=(source.axes,), labels=(source.label,), moves=True)
    if first == last:
        return Semantics(outputs=(x.axes,), labels=(x.label,), moves=True)
    return _write(call, x, source, dim, first, last, source[dim], others)


@rule("aten.select_scatter")
def select_scatter(call: Call, x: Operand, source: Operand, dim: int, at: int) -> Semantics:
    """One item of an axis is overwritten."""
    dim = normal_axis(dim, len(x))
    at = at + x.shape[dim] if at < 0 else at
    others = tuple((x[a], source[a if a < dim else a - 1]) for a in range(len(x)) if a != dim)
    return _write(call, x, source, dim, at, at + 1, (), others)


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
