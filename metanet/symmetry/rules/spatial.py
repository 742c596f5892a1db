"""Windows that slide along positions: pooling, resizing, unfolding. Batch and channel axes are only
looped over."""

from math import prod
from typing import Any

from .._leaves import Expr
from .._semantics import Call, Follow, Operand, Semantics, normal_axis, rule


def _slides(call: Call, x: Operand, rank: int, why: str) -> Semantics:
    """The last ``rank`` axes are positions; everything before them stays."""
    shape, lead = call.shapes[0] or (), len(x) - rank
    positions = tuple(call.fresh(n) for n in shape[lead:])
    return Semantics(
        outputs=((*x.axes[:lead], *positions), *(None,) * (len(call.shapes) - 1)),
        pins=tuple((e, why) for e in (*x.axes[lead:], *positions)),
        flow=(Follow(x, (*range(lead), *(None,) * rank)),),
    )


def _rank(name: str) -> int:
    return next((n for n in (1, 2, 3) if f"{n}d" in name), 2)


@rule(
    "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.avg_pool1d", "aten.avg_pool2d",
    "aten.avg_pool3d", "aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d", "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d", "aten.max_pool2d", "aten.max_pool1d", "aten.adaptive_avg_pool2d",
)  # fmt: skip
def pool(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """Windows slide along the trailing axes."""
    return _slides(call, x, _rank(call.name), "a pooling window slides along it")


@rule(
    "aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d", "aten.upsample_linear1d",
    "aten.upsample_bilinear2d", "aten.upsample_trilinear3d", "aten.upsample_bicubic2d", "aten._upsample_bilinear2d_aa",
    "aten._upsample_bicubic2d_aa", "aten._upsample_nearest_exact1d", "aten._upsample_nearest_exact2d",
)  # fmt: skip
def upsample(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """Positions are interpolated."""
    return _slides(call, x, len(x) - 2, "positions along it are interpolated")


@rule("aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sampler(call: Call, x: Operand, grid: Operand, *_: Any) -> Semantics:
    """Positions are read where the grid says.

    Shapes:
        - **x** ``(batch, channels, h, w)``, **grid** ``(batch, a, b, 2)`` -> ``(batch, channels, a,
          b)``
    """
    pins = tuple((e, "positions along it are read by coordinates") for e in (*x.axes[2:], grid[-1]))
    return Semantics(
        outputs=((*x.axes[:2], *grid.axes[1:-1]),), equal=((x[0], grid[0]),), pins=pins
    )


@rule("aten.unfold")
def unfold(call: Call, x: Operand, dim: int, size: int, step: int) -> Semantics:
    """Windows of one axis; the items of a window become the last axis."""
    dim = normal_axis(dim, len(x))
    windows, inner = call.fresh((call.shapes[0] or ())[dim]), call.fresh(size)
    why = "a window slides along it"
    pins = tuple((e, why) for e in (x[dim], windows, inner))
    return Semantics(outputs=((*x.axes[:dim], windows, *x.axes[dim + 1 :], inner),), pins=pins)


@rule("aten.im2col")
def im2col(call: Call, x: Operand, kernel: list[int], *_: Any) -> Semantics:
    """Windows as columns: ``(..., c, h, w)`` to ``(..., c kernel, windows)``."""
    inner, windows = call.fresh(prod(kernel)), call.fresh((call.shapes[0] or ())[-1])
    why = "a window slides along it"
    pins = tuple((e, why) for e in (*x.axes[-2:], inner, windows))
    return Semantics(outputs=((*x.axes[:-3], x[-3] + inner, windows),), pins=pins)


@rule("aten.col2im")
def col2im(call: Call, x: Operand, size: list[int], kernel: list[int], *_: Any) -> Semantics:
    """The inverse of ``im2col``: windows are summed where they overlap."""
    shape = call.shapes[0] or ()
    channel, inner = call.fresh(shape[-3]), call.fresh(prod(kernel))
    positions: list[Expr] = [call.fresh(n) for n in shape[-2:]]
    why = "a window slides along it"
    pins = tuple((e, why) for e in (inner, x[-1], *positions))
    return Semantics(
        outputs=((*x.axes[:-2], channel, *positions),), equal=((x[-2], channel + inner),), pins=pins
    )


@rule("aten.as_strided")
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


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def fourier(call: Call, x: Operand, dims: list[int], *_: Any) -> Semantics:
    """A Fourier transform mixes all positions of some axes."""
    shape, chosen = call.shapes[0] or (), {normal_axis(d, len(x)) for d in dims}
    why = "a Fourier transform runs along it"
    axes = tuple(call.fresh(shape[a]) if a in chosen else e for a, e in enumerate(x))
    return Semantics(outputs=(axes,), pins=tuple((e, why) for a in chosen for e in (x[a], axes[a])))
