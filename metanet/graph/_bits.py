"""Tensors compared bit for bit."""

import torch
from torch import Tensor


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits, so that NaN equals itself and -0.0 is not 0.0."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left is right or (left.numel() and left.data_ptr() == right.data_ptr() and left.stride() == right.stride()):
        return True
    return torch.equal(left.contiguous().view(-1).view(torch.uint8), right.contiguous().view(-1).view(torch.uint8))
