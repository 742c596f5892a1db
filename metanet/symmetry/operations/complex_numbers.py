"""Complex numbers: their parts, lazily conjugated and negated views, numbers read from the bits of
others.

Products, sums and Fourier transforms have the rules that they have for real numbers; ``polar``,
``complex`` and ``abs`` act entry by entry.
"""

from typing import Any

import torch

from .._charged import Axes, Charged, ChargedCall
from .._flow import Follow
from .._operand import Operand
from .._operation import Call, Semantics, law, rule
from .pointwise import pointwise

# Entry by entry; also views in which entries, or their imaginary parts, show with the other sign, and
# the same as copies.
rule(
    "aten.polar",
    "aten.complex",
    "aten.real",
    "aten.imag",
    "aten.conj",
    "aten._conj",
    "aten.conj_physical",
    "aten._neg_view",
    "aten._neg_view_copy",
    "aten._conj_copy",
)(pointwise)


@law("aten.real", "aten.imag", "aten.conj", "aten._conj", "aten._neg_view", "aten.conj_physical")
def part_charges(call: ChargedCall, x: Charged, *_: Any, **__: Any) -> list[Axes | None]:
    """Linear entry by entry."""
    return [x.axes]


@law("aten.complex")
def from_parts_charges(call: ChargedCall, real: Charged, imaginary: Charged) -> list[Axes | None]:
    """``real + i imaginary``: both parts have the same charges."""
    return [call.agree((real, imaginary))]


@law("aten.polar")
def from_length_charges(call: ChargedCall, length: Charged, angle: Charged) -> list[Axes | None]:
    """Linear in the length, whose sign may be anything."""
    call.pin(angle)
    return [call.aligned(length)]


@rule("aten.view_as_real", "aten.view_as_complex", linear=True)
def complex_view(call: Call, x: Operand) -> Semantics:
    """Real and imaginary part are told apart."""
    why = "real and imaginary part"
    if call.name.endswith("real"):
        part = call.fresh(2)
        return Semantics(
            outputs=((*x.axes, part),),
            pins=((part, why),),
            flow=(Follow(x, (*range(len(x)), None)),),
        )
    return Semantics(
        outputs=(x.axes[:-1],), pins=((x[-1], why),), flow=(Follow(x, tuple(range(len(x) - 1))),)
    )


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
    last = call.fresh(call.shape[-1])
    return Semantics(outputs=((*x.axes[:-1], last),), equal=((x[-1], last + part),), pins=pins)
