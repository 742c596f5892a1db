"""Operations that only rearrange whole axes: views, permutations, copies."""

from collections.abc import Iterator
from typing import Any

from .._flow import Follow, Rearrange, Regroup
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, normal_axes, normal_axis, pinned, rule


@rule(
    "aten.view",
    "aten._unsafe_view",
    "aten.reshape",
    "aten._reshape_alias",
    "aten.view_copy",
    linear=True,
)
def view(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """The same entries in row-major order: stretches of axes with equal products list the same
    items.

    ``(2, 12, 5)`` as ``(8, 3, 5)``: 24 items on both sides, then 5. The 24 are ``(2, 12)`` before,
    so that two new axes of 8 and 3 are equated with their product.
    """
    shape = call.shape
    if 0 in shape:
        return Semantics(outputs=(None,), moves=True)
    outputs: list[Expr] = []
    equal: list[tuple[Expr, Expr]] = []
    for before, behind in _stretches(x.shape, shape):
        whole: Expr = sum(x.axes[before], ())
        sizes = shape[behind]
        if sum(n > 1 for n in sizes) <= 1:  # joining needs no new leaves
            outputs += [whole if n > 1 else () for n in sizes]
        else:
            fresh = [call.fresh(n) for n in sizes]
            outputs += fresh
            equal.append((whole, sum(fresh, ())))
    return Semantics(outputs=(tuple(outputs),), equal=tuple(equal), moves=True, flow=(Regroup(x),))


def _stretches(before: tuple[int, ...], behind: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """The shortest stretches of two shapes that have equal products."""
    i = j = 0
    while i < len(before) or j < len(behind):
        start, stop = (i, j), (i, j)
        m = n = 1
        while stop == start or m != n:
            if m <= n and i < len(before):
                m *= before[i]
                i += 1
            else:
                n *= behind[j]
                j += 1
            stop = (i, j)
        yield slice(start[0], i), slice(start[1], j)


def _rearranged(x: Operand, axes: tuple[int | None, ...], how: str = "view") -> Semantics:
    outputs = tuple(() if a is None else x[a] for a in axes)
    return Semantics(outputs=(outputs,), moves=True, flow=(Follow(x, axes), Rearrange(x, how)))


@rule("aten.permute", linear=True)
def permute(call: Call, x: Operand, dims: list[int]) -> Semantics:
    """Axes in another order."""
    return _rearranged(x, normal_axes(dims, len(x)) if len(x) else ())


@rule("aten.t", "aten.numpy_T", linear=True)
def t(call: Call, x: Operand) -> Semantics:
    """A matrix transposed."""
    return _rearranged(x, tuple(reversed(range(len(x)))))


@rule("aten.transpose", "aten.swapaxes", linear=True)
def transpose(call: Call, x: Operand, a: int, b: int) -> Semantics:
    """Two axes change places."""
    order = list(range(len(x)))
    a, b = normal_axis(a, len(x)), normal_axis(b, len(x))
    order[a], order[b] = order[b], order[a]
    return _rearranged(x, tuple(order))


@rule("aten.unsqueeze", linear=True)
def unsqueeze(call: Call, x: Operand, dim: int) -> Semantics:
    """A new axis of size 1."""
    axes: list[int | None] = list(range(len(x)))
    axes.insert(normal_axis(dim, len(x) + 1), None)
    return _rearranged(x, tuple(axes))


@rule("aten.squeeze", linear=True)
def squeeze(call: Call, x: Operand, dim: int | list[int] | None = None) -> Semantics:
    """Axes of size 1 go."""
    named = set(normal_axes(dim, len(x)))
    return _rearranged(x, tuple(a for a in range(len(x)) if a not in named or x.shape[a] != 1))


@rule(
    "aten.alias",
    "aten.detach",
    "aten.lift_fresh",
    "aten.contiguous",
    "aten.clone",
    "aten._to_copy",
    "aten.lift",
    linear=True,
)
def alias(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """The same entries, perhaps in another dtype or on another device."""
    return _rearranged(x, tuple(range(len(x))), "same")


@rule("aten.diagonal")
def diagonal(call: Call, x: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Semantics:
    """Entries with the same number on two axes, which list the same items; their axis comes
    last."""
    a, b = normal_axis(dim1, len(x)), normal_axis(dim2, len(x))
    others = [axis for i, axis in enumerate(x) if i not in (a, b)]
    if offset == 0 and x.shape[a] == x.shape[b]:
        out, equal = (*others, x[a]), ((x[a], x[b]),)
        return Semantics(outputs=(out,), equal=equal, moves=True, flow=(Rearrange(x, "view"),))
    along = call.fresh(call.shape[-1])
    pins = pinned((x[a], x[b], along), "a diagonal is taken along it")
    out = (*others, along)
    return Semantics(outputs=(out,), pins=pins, moves=True, flow=(Rearrange(x, "view"),))


@rule("aten.expand", linear=True)
def expand(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """A repeated axis is the same everywhere along it: it imposes nothing."""
    rank = len(call.shape)
    outputs: list[Expr] = []
    of_operand: list[int | None] = []
    for i, n in enumerate(call.shape):
        stays = x.full_size(rank - i, n)
        axis = i - rank + len(x)
        of_operand.append(axis if stays else None)
        outputs.append(x[axis] if stays else call.wild(n))
    flow = (Follow(x, tuple(of_operand)), Rearrange(x, "view"))
    return Semantics(outputs=(tuple(outputs),), moves=True, flow=flow)


@rule("aten.repeat", linear=True)
def repeat(call: Call, x: Operand, times: list[int]) -> Semantics:
    """Every axis is run through several times: an outer factor along which nothing varies."""
    lead = len(times) - len(x)
    padded = [() if i < lead else x[i - lead] for i in range(len(times))]
    out = tuple(call.wild(n) + e for n, e in zip(times, padded, strict=True))
    return Semantics(outputs=(out,), moves=True, flow=(Rearrange(x, "copy"),))


@rule("aten.pixel_shuffle", linear=True)
def pixel_shuffle(call: Call, x: Operand, factor: int) -> Semantics:
    """Channels ``(c, r, r)`` to positions: ``(..., c r r, h, w)`` to ``(..., c, h r, w r)``."""
    channel = call.fresh(x.shape[-3] // factor**2)
    down, across = call.fresh(factor), call.fresh(factor)
    out = (*x.axes[:-3], channel, x[-2] + down, x[-1] + across)
    equal = ((x[-3], channel + down + across),)
    return Semantics(outputs=(out,), equal=equal, moves=True, flow=(Rearrange(x, "copy"),))


@rule("aten.pixel_unshuffle", linear=True)
def pixel_unshuffle(call: Call, x: Operand, factor: int) -> Semantics:
    """The inverse of ``pixel_shuffle``."""
    high, wide = call.fresh(x.shape[-2] // factor), call.fresh(x.shape[-1] // factor)
    down, across = call.fresh(factor), call.fresh(factor)
    equal = ((x[-2], high + down), (x[-1], wide + across))
    out = (*x.axes[:-3], x[-3] + down + across, high, wide)
    return Semantics(outputs=(out,), equal=equal, moves=True, flow=(Rearrange(x, "copy"),))


@rule("aten.channel_shuffle", "aten.native_channel_shuffle", linear=True)
def channel_shuffle(call: Call, x: Operand, groups: int) -> Semantics:
    """Channels ``(groups, n)`` to ``(n, groups)``."""
    group, inner = call.fresh(groups), call.fresh(x.shape[1] // groups)
    out, equal = (x[0], inner + group, *x.axes[2:]), ((x[1], group + inner),)
    return Semantics(outputs=(out,), equal=equal, moves=True, flow=(Rearrange(x, "copy"),))


@rule("aten.as_strided", linear=True)
def as_strided(
    call: Call, x: Operand, size: list[int], stride: list[int], offset: int | None = None
) -> Semantics | None:
    """Any view at all: axes with a size and stride of the tensor's own are those axes, the others
    are windows."""
    strides, start = x.layout
    layout = {a: (n, strides[a]) for a, n in enumerate(x.shape) if n > 1}
    of_operand: list[int | None] = []
    windows: list[tuple[int, int]] = []
    for step in zip(size, stride, strict=True):
        match = next((a for a, axis in layout.items() if axis == step), None)
        of_operand.append(match)
        if match is not None:
            del layout[match]
        elif step[0] > 1:
            windows.append(step)
    reached = _offsets(windows, 0 if offset is None else offset - start)
    if not reached <= _offsets(list(layout.values()), 0):
        return None  # it walks along the axes that it seemed to keep
    axes = [call.fresh(n) if a is None else x[a] for n, a in zip(size, of_operand, strict=True)]
    new = [axis for axis, a in zip(axes, of_operand, strict=True) if a is None]
    pins = pinned([*(x[a] for a in layout), *new], "a window slides along it")
    flow = (Follow(x, tuple(of_operand)), Rearrange(x, "memory"))
    return Semantics(outputs=(tuple(axes),), pins=pins, moves=not pins, flow=flow)


def _offsets(axes: list[tuple[int, int]], start: int) -> set[int]:
    """All places in memory that axes of these sizes and strides reach."""
    reached = {start}
    for n, s in axes:
        reached = {r + i * s for r in reached for i in range(n)}
    return reached
