"""Tensors compared bit for bit."""

import torch
from torch import Tensor


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits.

    So NaN equals itself, and -0.0 is not 0.0.
    """
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    left, right = plain(left), plain(right)
    if left is right or (
        left.numel() and left.data_ptr() == right.data_ptr() and left.stride() == right.stride()
    ):
        return True
    return torch.equal(
        left.contiguous().view(-1).view(torch.uint8), right.contiguous().view(-1).view(torch.uint8)
    )


def plain(tensor: Tensor) -> Tensor:
    """The same numbers as they lie in memory: nothing is left to conjugate or negate on reading."""
    return tensor.resolve_conj().resolve_neg()


def real_parts(tensor: Tensor) -> Tensor:
    """A complex tensor as a real one with a last axis of 2.

    Real and imaginary part; a real tensor is returned as it is.
    """
    return torch.view_as_real(plain(tensor)) if tensor.is_complex() else plain(tensor)
