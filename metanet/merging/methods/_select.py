"""Choosing elements by size."""

import torch
from torch import Tensor


def largest(values: Tensor, count: int) -> Tensor:
    """A mask of the ``count`` largest elements; of equal ones, those that come first.

    Args:
        values: of any shape, not NaN.
    """
    flat = values.reshape(-1)
    if count <= 0 or count >= flat.numel():
        return values.new_full(values.shape, count > 0, dtype=torch.bool)
    least = flat.kthvalue(flat.numel() - count + 1).values
    mask = flat > least
    equal = flat == least
    lacking = count - int(mask.sum())
    if lacking < int(equal.sum()):
        equal &= equal.cumsum(0) <= lacking
    return (mask | equal).reshape(values.shape)
