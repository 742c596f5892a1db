"""Results beyond what the dtype that they are stored in can hold: counted and named, never infinite
in silence."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import MetanetError

OVERFLOWS = ("error", "clip", "keep")
_WIDER = {torch.float16: "bfloat16 or float32", torch.bfloat16: "float32", torch.float32: "float64"}


def check_overflow(overflow: str) -> None:
    """Raises MetanetError if there is no such choice."""
    if overflow not in OVERFLOWS:
        raise MetanetError(f"overflow={overflow!r}: give one of {', '.join(OVERFLOWS)}")


def largest_of(tensor: Tensor) -> float:
    """The largest magnitude, in one pass; NaN if one is NaN."""
    if not tensor.numel():
        return 0.0
    low, high = torch.aminmax(tensor)
    return float(torch.maximum(high, -low))


def stored_as(
    dtype: torch.dtype,
    name: str,
    tensor: Tensor,
    overflow: str,
    tell: Callable[[str, Any], None],
    largest: float | None = None,
) -> Tensor:
    """A tensor in a narrower dtype, on the CPU.

    float16 ends at 65504, float8_e4m3fn at 448; what lies beyond would become infinite, or NaN.

    >>> stored_as(torch.float16, "w", torch.tensor([1.0, 1e6]), "clip", lambda name, told:
    ...     print(name, told))
    overflow/w 1 of 2 values beyond torch.float16 (up to 1e+06), stored as its largest
    tensor([1.0000e+00, 6.5504e+04], dtype=torch.float16)

    Args:
        dtype: floating or complex.
        name: for messages.
        tensor: real, in float32 or wider; what is infinite already stays so.
        overflow: one of :data:`OVERFLOWS`.
        tell: gets a line for the report.
        largest: what :func:`largest_of` says of the tensor, if it was asked already.

    Raises:
        MetanetError: values lie beyond, and ``overflow`` is ``"error"``.
    """
    end = torch.finfo(dtype).max
    if torch.finfo(tensor.dtype).max <= end:
        return tensor.to("cpu", dtype)
    largest = largest_of(tensor) if largest is None else largest
    if largest < _edge(dtype):
        return tensor.to("cpu", dtype)
    finite = torch.where(torch.isfinite(tensor), tensor, 0.0)
    count, largest = int((finite.abs() >= _edge(dtype)).sum()), largest_of(finite)
    if not count:
        return tensor.to("cpu", dtype)
    what = f"{count:,} of {tensor.numel():,} values beyond {dtype} (up to {largest:.6g})"
    if overflow == "error":
        wider = _WIDER.get(dtype, "float16, bfloat16 or float32")
        raise MetanetError(
            f"{name}: {what}, whose largest is {end:.6g}; other tensors may have such values too. "
            f"Give out_dtype={wider.split()[0].rstrip(',')} ({wider} can hold them), or "
            "overflow=clip to store its largest, or overflow=keep to store what the cast makes of "
            "them, infinity"
        )
    tell(
        f"overflow/{name}",
        f"{what}, stored as {'its largest' if overflow == 'clip' else 'infinity'}",
    )
    return (tensor.clamp(-end, end) if overflow == "clip" else tensor).to("cpu", dtype)


def _edge(dtype: torch.dtype) -> float:
    """The smallest magnitude that no longer rounds to the largest number: half a step beyond it.

    float16: 65504 + 32 / 2 = 65520.
    """
    info = torch.finfo(dtype)
    return info.max + info.eps * 2.0 ** math.floor(math.log2(info.max)) / 2
