"""Select, calculate, erase."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._part import Part
from .._registry import method
from ._select import largest
from ._sphere import gram


@method("sce", reference="https://arxiv.org/abs/2408.07990", base="required")
def sce(part: Part, *, select_topk: float = 1.0) -> Tensor:
    """Changes on which models differ, weighted by size, by the sign of the sum (Wan et al. 2024).

    The elements that vary most between models are selected (of equal ones, those that come first),
    every model counts by the squares of its selected changes, and changes against the elected sign
    are erased.

    Args:
        select_topk: the share of elements to select, of those that vary at all.
    """
    deltas: Sequence[Tensor] = part.deltas
    if select_topk < 1:
        variance = _variance(deltas)
        mask = largest(variance, int(variance.count_nonzero() * max(0.0, select_topk)))
        deltas = [delta.masked_fill(mask.logical_not(), 0) for delta in deltas]
    sizes = gram(deltas).diagonal()
    shares = (sizes / sizes.sum()).tolist() if sizes.any() else [1.0] * len(deltas)
    elected = (sum(deltas[1:], start=deltas[0]) >= 0).to(part.origin.dtype).mul_(2).sub_(1)
    above, below = torch.zeros_like(part.origin), torch.zeros_like(part.origin)
    for delta, share in zip(deltas, shares, strict=True):
        agreeing = (delta * elected).clamp_(min=0)
        above.add_(agreeing, alpha=share)
        below.add_(agreeing.sign_(), alpha=share)
    below.masked_fill_(below == 0, 1)
    return above.div_(below).mul_(elected).add_(part.origin)


def _variance(tensors: Sequence[Tensor]) -> Tensor:
    """Of every element between tensors; exactly 0 where all are equal."""
    first, *others = tensors
    mean = sum((tensor - first for tensor in others), start=torch.zeros_like(first)) / len(tensors)
    out = mean.square()
    for tensor in others:
        out += (tensor - first - mean).square_()
    return out / len(tensors)
