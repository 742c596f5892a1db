"""Weighted averages."""

import torch
from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from .._registry import PerModel, method


@method("linear", reference="https://arxiv.org/abs/2203.05482")
def linear(part: Part, *, weights: PerModel = 1.0, normalize: bool = True) -> Tensor:
    """The weighted average of all models (Wortsman et al. 2022, model soups).

    Args:
        weights: how much of each model.
        normalize: divide by the sum of the weights.
    """
    total = sum(weights)
    if normalize:
        if total == 0:
            raise MetanetError(
                f"method 'linear': the weights {list(weights)} have the sum 0; give normalize=false"
            )
        weights, total = [w / total for w in weights], 1.0
    first, *others = part.tensors
    # By differences to the first, so that the average of equal tensors is that tensor, bit for bit.
    out = torch.lerp(first, others[0], weights[1]) if others else first
    for tensor, weight in zip(others[1:], weights[2:], strict=True):
        out = out.add_(tensor - first, alpha=weight)
    return out if total == 1.0 else out + first * (total - 1.0)
