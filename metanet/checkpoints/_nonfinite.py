"""NaN and infinite weights: allowed, and counted."""

from collections.abc import Mapping

import torch
from torch import Tensor


def report_nonfinite(mapping: Mapping[str, Tensor]) -> dict[str, int]:
    """How many values of each tensor are NaN or infinite; tensors without any are left out.

    Args:
        mapping: tensors by name; a :class:`Checkpoint` is read one tensor at a time.
    """
    counts = {name: _count(mapping[name]) for name in mapping}
    return {name: count for name, count in counts.items() if count}


def _count(tensor: Tensor) -> int:
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return 0
    if tensor.dtype.is_floating_point and tensor.element_size() == 1:
        tensor = tensor.float()  # torch has no isfinite for 8-bit floats
    return int(tensor.numel() - torch.isfinite(tensor).sum())
