"""Operations that take a stretch of an axis, or write one."""

from typing import Any

from .._flow import Follow, Rearrange, Take, Write
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, normal_axis, rule


def _bounds(start: int | None, stop: int | None, n: int) -> tuple[int, int]:
    """Start and end of a slice, as positions within the axis."""
    first, last, _ = slice(start, stop).indices(n)
    return first, max(first, last)


@rule("aten.slice", "aten.slice_copy", linear=True)
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
    of_operand = tuple(a if a != dim else None for a in range(len(x)))
    if (first, last, step) == (0, n, 1):
        everything = (Follow(x, tuple(range(len(x)))), Rearrange(x, "view"))
        return Semantics(outputs=(x.axes,), moves=True, flow=everything)
    flow = (Follow(x, of_operand), Rearrange(x, "view"))
    return Semantics(outputs=(Take(x, dim, first, last, step),), moves=True, flow=flow)


@rule("aten.select", "aten.select_copy", linear=True)
def select(call: Call, x: Operand, dim: int, at: int) -> Semantics:
    """One item of an axis, which goes."""
    dim = normal_axis(dim, len(x))
    at = at + x.shape[dim] if at < 0 else at
    of_operand = tuple(a for a in range(len(x)) if a != dim)
    flow = (Follow(x, of_operand), Rearrange(x, "view"))
    return Semantics(outputs=(Take(x, dim, at, at + 1, drop=True),), moves=True, flow=flow)


@rule("aten.unbind", "aten.unbind_copy", linear=True)
def unbind(call: Call, x: Operand, dim: int = 0) -> Semantics:
    """Every item of an axis on its own."""
    dim = normal_axis(dim, len(x))
    return Semantics(
        outputs=tuple(Take(x, dim, i, i + 1, drop=True) for i in range(len(call.shapes))),
        moves=True,
        flow=(Rearrange(x, "view"),),
    )


@rule(
    "aten.split",
    "aten.split_with_sizes",
    "aten.unsafe_split",
    "aten.unsafe_split_with_sizes",
    "aten.split_copy",
    "aten.split_with_sizes_copy",
    linear=True,
)
def split(call: Call, x: Operand, sizes: int | list[int], dim: int = 0) -> Semantics:
    """An axis in consecutive stretches."""
    dim = normal_axis(dim, len(x))
    n = x.shape[dim]
    lengths = [sizes] * len(call.shapes) if isinstance(sizes, int) else sizes
    ends = [min(n, sum(lengths[: i + 1])) for i in range(len(call.shapes))]
    return Semantics(
        outputs=tuple(Take(x, dim, a, b) for a, b in zip([0, *ends], ends, strict=False)),
        moves=True,
        flow=(Rearrange(x, "view"),),
    )


def _write(call: Call, write: Write, middle: Expr, others: Any) -> Semantics:
    """A stretch of an axis is replaced: what lies before and behind it stays."""
    x, dim, start = write.into, write.axis, write.start
    stop = start + write.count
    n, numbers = x.shape[dim], call.as_numbers(x, write.source)
    before, after = (call.fresh(m) if m else () for m in (start, n - stop))
    old = call.fresh(stop - start)

    def around(inside: Expr) -> Expr:
        parts = [e for e, m in ((before, start), (inside, stop - start), (after, n - stop)) if m]
        return call.concat(*parts)

    if call.leaves.inert(x[dim]) is not None:
        out, equal = x[dim], ((x[dim], around(middle)),)
    else:
        out, equal = around(middle), ((x[dim], around(old)),)
    axes = x.replaced(dim, out)
    return Semantics(
        outputs=(axes,), equal=(*equal, *others), pins=numbers, labels=(None,), flow=(write,)
    )


@rule("aten.slice_scatter")
def slice_scatter(
    call: Call,
    x: Operand,
    source: Operand,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Semantics:
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
    write = Write(x, source, dim, first, last - first)
    if (first, last) == (0, x.shape[dim]):
        return Semantics(outputs=(source.axes,), labels=(source.label,), moves=True, flow=(write,))
    if first == last:
        return Semantics(outputs=(x.axes,), labels=(x.label,), moves=True, flow=(write,))
    return _write(call, write, source[dim], others)


@rule("aten.select_scatter")
def select_scatter(call: Call, x: Operand, source: Operand, dim: int, at: int) -> Semantics:
    """One item of an axis is overwritten."""
    dim = normal_axis(dim, len(x))
    at = at + x.shape[dim] if at < 0 else at
    others = tuple((x[a], source[a if a < dim else a - 1]) for a in range(len(x)) if a != dim)
    return _write(call, Write(x, source, dim, at, 1, single=True), (), others)
