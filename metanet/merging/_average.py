"""The weighted average of tensors, on which many methods fall back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import MetanetError


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float], total: float) -> Tensor:
    """The sum of weights times tensors; with the total 1, of equal ones that tensor, bit for bit.

    Differences to the first tensor are what is added up::

        first + (second - first) w2 + (third - first) w3 + ... + first (total - 1)

    Args:
        tensors: of one shape.
        weights: one for each.
        total: the sum of the weights, exactly 1 where they were divided by it.
    """
    first, *others = tensors
    out = torch.lerp(first, others[0], weights[1]) if others else first
    for tensor, weight in zip(others[1:], weights[2:], strict=True):
        out = out.add_(tensor - first, alpha=weight)
    return out if total == 1.0 else out + first * (total - 1.0)


def average(tensors: Sequence[Tensor], weights: Sequence[float], method: str) -> Tensor:
    """The weighted average; of equal tensors that tensor, bit for bit.

    Args:
        tensors: of one shape.
        weights: one for each; only their ratios count.
        method: who asks, for messages.

    Raises:
        MetanetError: the weights have the sum 0.
    """
    total = sum(weights)
    if total == 0:
        raise MetanetError(f"method {method!r}: the weights {list(weights)} have the sum 0")
    return weighted_sum(tensors, [weight / total for weight in weights], 1.0)
