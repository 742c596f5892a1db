"""Operations that only rearrange whole axes: views, permutations, copies."""

from math import prod
from typing import Any

from .._flow import Follow, Regroup
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, normal_axes, normal_axis, rule


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
    items."""
    shape = call.shapes[0] or ()
    if 0 in shape:
        return Semantics(outputs=(None,), moves=True)
    outputs: list[Expr] = []
    equal: list[tuple[Expr, Expr]] = []
    i = j = 0
    while i < len(x.shape) or j < len(shape):
        ins, outs = [], []
        while True:  # the shortest stretch with equal products on both sides
            m, n = prod(x.shape[k] for k in ins), prod(shape[k] for k in outs)
            if (ins or outs) and m == n:
                break
            if m <= n and i < len(x.shape):
                ins.append(i)
                i += 1
            else:
                outs.append(j)
                j += 1
        merged: Expr = sum((x[k] for k in ins), ())
        if len([k for k in outs if shape[k] > 1]) <= 1:  # joining needs no new leaves
            outputs += [merged if shape[k] > 1 else () for k in outs]
        else:
            fresh = [call.fresh(shape[k]) for k in outs]
            outputs += fresh
            equal.append((merged, sum(fresh, ())))
    return Semantics(outputs=(tuple(outputs),), equal=tuple(equal), moves=True, flow=(Regroup(x),))


def _rearranged(x: Operand, axes: tuple[int | None, ...]) -> Semantics:
    outputs = tuple(() if a is None else x[a] for a in axes)
    return Semantics(outputs=(outputs,), moves=True, flow=(Follow(x, axes),))


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
    return _rearranged(x, tuple(range(len(x))))


@rule("aten.diagonal")
def diagonal(call: Call, x: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Semantics:
    """Entries with the same number on two axes, which list the same items; their axis comes
    last."""
    a, b = normal_axis(dim1, len(x)), normal_axis(dim2, len(x))
    rest = tuple(e for i, e in enumerate(x) if i not in (a, b))
    if offset == 0 and x.shape[a] == x.shape[b]:
        return Semantics(outputs=((*rest, x[a]),), equal=((x[a], x[b]),), moves=True)
    why, along = "a diagonal is taken along it", call.fresh((call.shapes[0] or ())[-1])
    return Semantics(
        outputs=((*rest, along),), pins=tuple((e, why) for e in (x[a], x[b], along)), moves=True
    )


@rule("aten.expand", linear=True)
def expand(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """A repeated axis is the same everywhere along it: it imposes nothing."""
    shape = call.shapes[0] or ()
    lead = len(shape) - len(x)
    axes = tuple(
        i - lead if i >= lead and x.shape[i - lead] == n else None for i, n in enumerate(shape)
    )
    outputs = tuple(call.wild(n) if a is None else x[a] for a, n in zip(axes, shape, strict=True))
    return Semantics(outputs=(outputs,), moves=True, flow=(Follow(x, axes),))


@rule("aten.repeat", linear=True)
def repeat(call: Call, x: Operand, times: list[int]) -> Semantics:
    """Every axis is run through several times: an outer factor along which nothing varies."""
    lead = len(times) - len(x)
    own = [() if i < lead else x[i - lead] for i in range(len(times))]
    return Semantics(
        outputs=(tuple(call.wild(n) + e for n, e in zip(times, own, strict=True)),), moves=True
    )


@rule("aten.pixel_shuffle", linear=True)
def pixel_shuffle(call: Call, x: Operand, factor: int) -> Semantics:
    """Channels ``(c, r, r)`` to positions: ``(..., c r r, h, w)`` to ``(..., c, h r, w r)``."""
    channel = call.fresh(x.shape[-3] // factor**2)
    down, across = call.fresh(factor), call.fresh(factor)
    out = (*x.axes[:-3], channel, x[-2] + down, x[-1] + across)
    return Semantics(outputs=(out,), equal=((x[-3], channel + down + across),), moves=True)


@rule("aten.pixel_unshuffle", linear=True)
def pixel_unshuffle(call: Call, x: Operand, factor: int) -> Semantics:
    """The inverse of ``pixel_shuffle``."""
    high, wide = call.fresh(x.shape[-2] // factor), call.fresh(x.shape[-1] // factor)
    down, across = call.fresh(factor), call.fresh(factor)
    equal = ((x[-2], high + down), (x[-1], wide + across))
    return Semantics(
        outputs=((*x.axes[:-3], x[-3] + down + across, high, wide),), equal=equal, moves=True
    )


@rule("aten.channel_shuffle", "aten.native_channel_shuffle", linear=True)
def channel_shuffle(call: Call, x: Operand, groups: int) -> Semantics:
    """Channels ``(groups, n)`` to ``(n, groups)``."""
    group, inner = call.fresh(groups), call.fresh(x.shape[1] // groups)
    return Semantics(
        outputs=((x[0], inner + group, *x.axes[2:]),), equal=((x[1], group + inner),), moves=True
    )


@rule("aten.as_strided", linear=True)
def as_strided(
    call: Call, x: Operand, size: list[int], stride: list[int], offset: int | None = None
) -> Semantics | None:
    """Any view at all: axes with a size and stride of the tensor's own are those axes, the others
    are windows."""
    strides, start = x.layout
    left = [a for a, n in enumerate(x.shape) if n > 1]
    found: list[int | None] = []
    for n, s in zip(size, stride, strict=True):
        own = next((a for a in left if (x.shape[a], strides[a]) == (n, s)), None) if n > 1 else None
        found.append(own)
        if own is not None:
            left.remove(own)
    rest = [(n, s) for n, s, own in zip(size, stride, found, strict=True) if own is None and n > 1]
    reached = _offsets(rest, (offset - start) if offset is not None else 0)
    if not reached <= _offsets([(x.shape[a], strides[a]) for a in left], 0):
        return None  # it walks along the axes that it seemed to keep
    why = "a window slides along it"
    axes = tuple(
        call.fresh(n) if own is None else x[own] for n, own in zip(size, found, strict=True)
    )
    pins = [(x[a], why) for a in left] + [
        (e, why) for e, own in zip(axes, found, strict=True) if own is None
    ]
    return Semantics(
        outputs=(axes,), pins=tuple(pins), moves=not pins, flow=(Follow(x, tuple(found)),)
    )


def _offsets(axes: list[tuple[int, int]], start: int) -> set[int]:
    """All places in memory that axes of these sizes and strides reach."""
    reached = {start}
    for n, s in axes:
        reached = {r + i * s for r in reached for i in range(n)}
    return reached
