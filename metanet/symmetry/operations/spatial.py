"""Windows that slide along positions: pooling, resizing, unfolding, Fourier transforms.

Batch and channel axes are only looped over.
"""

from dataclasses import replace
from math import prod
from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import SIGN
from .._flow import Follow, Rearrange, Total
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axis, pinned, rule
from .order import stays


def _slides(call: Call, x: Operand, rank: int, why: str) -> Semantics:
    """The last ``rank`` axes are positions; everything before them stays."""
    shape, lead = call.shape, len(x) - rank
    positions = tuple(call.fresh(n) for n in shape[lead:])
    return Semantics(
        outputs=((*x.axes[:lead], *positions), *(None,) * (len(call.shapes) - 1)),
        pins=pinned((*x.axes[lead:], *positions), why),
        flow=(Follow(x, (*range(lead), *(None,) * rank)),),
    )


def _rank(name: str) -> int:
    return next((n for n in (1, 2, 3) if f"{n}d" in name), 2)


@rule(
    "aten.avg_pool1d",
    "aten.avg_pool2d",
    "aten.avg_pool3d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    "aten.adaptive_avg_pool2d",
    linear=True,
)
def average_pool(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """The means of windows that slide along the trailing axes."""
    return _slides(call, x, _rank(call.name), "a pooling window slides along it")


@rule(
    "aten.max_pool1d",
    "aten.max_pool2d",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d",
)
def max_pool(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """The largest entries of windows that slide along the trailing axes."""
    return _slides(call, x, _rank(call.name), "a pooling window slides along it")


@law(
    "aten.max_pool1d",
    "aten.max_pool2d",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d",
)
def max_pool_charges(call: ChargedCall, x: Charged, *args: Any, **__: Any) -> list[Axes | None]:
    """Positive factors leave their order alone."""
    call.pin(*args)
    call.pin(x, kind=SIGN)
    return [call.followed(x)]


@rule(
    "aten.upsample_linear1d",
    "aten.upsample_bilinear2d",
    "aten.upsample_trilinear3d",
    "aten.upsample_bicubic2d",
    "aten._upsample_bilinear2d_aa",
    "aten._upsample_bicubic2d_aa",
    "aten._upsample_nearest_exact1d",
    "aten._upsample_nearest_exact2d",
    linear=True,
)
def upsample(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """Positions are interpolated."""
    return _slides(call, x, len(x) - 2, "positions along it are interpolated")


@rule("aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d", linear=True)
def upsample_nearest(call: Call, x: Operand, *args: Any, **kwargs: Any) -> Semantics:
    """Every position is that of the nearest one."""
    said = upsample(call, x, *args, **kwargs)
    return replace(said, flow=(*said.flow, Rearrange(x, "copy")))


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


@rule("aten.unfold", linear=True)
def unfold(call: Call, x: Operand, dim: int, size: int, step: int) -> Semantics:
    """Windows of one axis; the items of a window become the last axis."""
    dim = normal_axis(dim, len(x))
    windows, inner = call.fresh(call.shape[dim]), call.fresh(size)
    why = "a window slides along it"
    pins = pinned((x[dim], windows, inner), why)
    out = (*x.axes[:dim], windows, *x.axes[dim + 1 :], inner)
    return Semantics(outputs=(out,), pins=pins, flow=(Rearrange(x, "view"),))


@rule("aten.unfold_backward")
def unfold_backward(call: Call, x: Operand, size: list[int], dim: int, *_: Any) -> Semantics:
    """The inverse of ``unfold``: the windows of an axis, which are the last axis, are summed where
    they overlap."""
    dim = normal_axis(dim, len(size))
    along, why = call.fresh(size[dim]), "a window slides along it"
    out = (*x.axes[:dim], along, *x.axes[dim + 1 : -1])
    return Semantics(outputs=(out,), pins=pinned((x[dim], x[-1], along), why))


@rule("aten.im2col", linear=True)
def im2col(call: Call, x: Operand, kernel: list[int], *_: Any) -> Semantics:
    """Windows as columns: ``(..., c, h, w)`` to ``(..., c kernel, windows)``."""
    inner, windows = call.fresh(prod(kernel)), call.fresh(call.shape[-1])
    why = "a window slides along it"
    pins = pinned((*x.axes[-2:], inner, windows), why)
    out = (*x.axes[:-3], x[-3] + inner, windows)
    return Semantics(outputs=(out,), pins=pins, flow=(Rearrange(x, "windows"),))


@rule("aten.col2im", linear=True)
def col2im(call: Call, x: Operand, size: list[int], kernel: list[int], *_: Any) -> Semantics:
    """The inverse of ``im2col``: windows are summed where they overlap."""
    shape = call.shape
    channel, inner = call.fresh(shape[-3]), call.fresh(prod(kernel))
    positions: list[Expr] = [call.fresh(n) for n in shape[-2:]]
    why = "a window slides along it"
    pins = pinned((inner, x[-1], *positions), why)
    return Semantics(
        outputs=((*x.axes[:-2], channel, *positions),), equal=((x[-2], channel + inner),), pins=pins
    )


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def fourier(call: Call, x: Operand, dims: list[int], *_: Any) -> Semantics:
    """A Fourier transform mixes all positions of some axes."""
    axes = list(x.axes)
    touched: list[Expr] = []
    for a in sorted({normal_axis(d, len(x)) for d in dims}):
        axes[a] = call.fresh(call.shape[a])
        touched += (x[a], axes[a])
    pins = pinned(touched, "a Fourier transform runs along it")
    return Semantics(outputs=(tuple(axes),), pins=pins, flow=(Total(x),))


law("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")(stays)
