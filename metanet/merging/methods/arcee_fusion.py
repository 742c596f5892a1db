"""The important changes only."""

import torch
from torch import Tensor

from .._part import Part
from .._registry import method


@method(
    "arcee_fusion", reference="https://github.com/arcee-ai/mergekit", base="required", models=(1, 1)
)
def arcee_fusion(part: Part) -> Tensor:
    """The changes that stand out in their row, by the interquartile range (Arcee Fusion).

    A change counts by its size times the divergence of its row, Kullback-Leibler's between the
    model's and the base's, each through a softmax. What lies above median + 1.5 interquartile
    ranges stays.

    The divergence is Kullback-Leibler's between a row of the model and of the base, each through a
    softmax (Arcee Fusion).
    """
    change = part.deltas[0]
    if change.numel() == 0:
        return change
    importance = change.abs() * _divergence(part.tensors[0], part.origin)
    low, middle, high = (_quantile(importance, share) for share in (0.25, 0.5, 0.75))
    return part.origin + change * (importance >= middle + 1.5 * (high - low))


def _divergence(a: Tensor, b: Tensor) -> Tensor:
    """Of the last axis, which is kept as 1."""
    p, q = (tensor.softmax(-1).add_(1e-8) for tensor in (a, b))
    return torch.sum(p * torch.log(p / q), dim=-1, keepdim=True)


def _quantile(tensor: Tensor, share: float) -> Tensor:
    """The element that this share of the others is below."""
    flat = tensor.reshape(-1)
    return flat.kthvalue(int(share * (flat.numel() - 1)) + 1).values
