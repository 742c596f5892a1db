"""Complex numbers: their parts, lazily conjugated and negated views, numbers read from the bits of
others.

Products, sums and Fourier transforms have the rules that they have for real numbers; ``polar``,
``complex`` and ``abs`` act entry by entry.
"""

from typing import Any

import torch

from .._semantics import Call, Operand, Semantics, normal_axis, rule
from .pointwise import pointwise

# Views in which entries, or their imaginary parts, show with the other sign; and the same as
# copies.
rule("aten._neg_view", "aten._neg_view_copy", "aten._conj_copy")(pointwise)


@rule("aten.view.dtype")
def bits(call: Call, x: Operand, dtype: torch.dtype) -> Semantics:
    """The same bits as numbers of another size: neighbours on the last axis become one, or one
    becomes several.

    ``x.view(torch.complex64)`` of float32 ``(3, 8)`` is ``(3, 4)``: the axis of 8 is ``4 x 2``, and
    real and imaginary part are told apart.
    """
    old, new = getattr(torch, x.dtype).itemsize, dtype.itemsize
    if old == new:
        return Semantics(outputs=(x.axes,))
    part = call.fresh(max(old, new) // min(old, new))
    pins = ((part, "numbers are read from the bits of their neighbours"),)
    if new < old:
        return Semantics(outputs=((*x.axes[:-1], x[-1] + part),), pins=pins)
    last = call.fresh((call.shapes[0] or ())[-1])
    return Semantics(outputs=((*x.axes[:-1], last),), equal=((x[-1], last + part),), pins=pins)


@rule("aten.unfold_backward")
def unfold_backward(call: Call, x: Operand, size: list[int], dim: int, *_: Any) -> Semantics:
    """The inverse of ``unfold``: the windows of an axis, which are the last axis, are summed where
    they overlap."""
    dim = normal_axis(dim, len(size))
    along, why = call.fresh(size[dim]), "a window slides along it"
    out = (*x.axes[:dim], along, *x.axes[dim + 1 : -1])
    return Semantics(outputs=(out,), pins=tuple((e, why) for e in (x[dim], x[-1], along)))
