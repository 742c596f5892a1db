"""Tensors as vectors: their inner products, and combinations of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

_CHUNK = 1 << 18  # numbers of each tensor that are held in float64 at a time


def gram(tensors: Sequence[Tensor]) -> Tensor:
    """All inner products of tensors of one shape, summed in float64 whatever they are stored in.

    Returns:
        ``(n, n)``, float64, on the CPU.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    out = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat[0].device)
    for parts in zip(*(vector.split(_CHUNK) for vector in flat), strict=True):
        rows = torch.stack(parts).double()
        out += rows @ rows.T
    return out.cpu()


def gram_of_rows(matrices: Sequence[Tensor]) -> Tensor:
    """As :func:`gram`, for every row on its own.

    Args:
        matrices: each ``(rows, columns)``.

    Returns:
        ``(rows, n, n)``, float64, on the CPU.
    """
    height = max(1, _CHUNK // max(1, matrices[0].shape[1]))
    blocks = []
    for parts in zip(*(matrix.split(height) for matrix in matrices), strict=True):
        rows = torch.stack(parts, 1).double()
        blocks.append((rows @ rows.mT).cpu())
    return torch.cat(blocks)


def cosines(products: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and cosines of what has these inner products; the zero vector's cosines are 0.

    Args:
        products: ``(..., n, n)``.

    Returns:
        ``(..., n)`` and ``(..., n, n)``.
    """
    lengths = products.diagonal(dim1=-2, dim2=-1).sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0)
    return lengths, (products * inverse[..., None] * inverse[..., None, :]).clamp(-1, 1)


def combination(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """The sum of coefficients times tensors, as a new tensor.

    It starts at the tensor that counts most and adds differences to it, so that coefficients of sum
    1 make of equal tensors that tensor, bit for bit, and the coefficients 0, 1 the second one.
    """
    total = sum(coefficients)
    most = max(range(len(tensors)), key=lambda k: abs(coefficients[k]))
    out = tensors[most].clone() if abs(total - 1) < 1e-14 else tensors[most] * total
    for k, (tensor, coefficient) in enumerate(zip(tensors, coefficients, strict=True)):
        if k != most and coefficient != 0:
            out.add_(tensor - tensors[most], alpha=coefficient)
    return out
