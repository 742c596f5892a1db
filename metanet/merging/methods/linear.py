"""Weighted averages."""

from torch import Tensor

from ...errors import MetanetError
from .._average import weighted_sum
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
    if not normalize:
        return weighted_sum(part.tensors, weights, total)
    if total == 0:
        raise MetanetError(
            f"method 'linear': the weights {list(weights)} have the sum 0; give normalize=false"
        )
    shares = [weight / total for weight in weights]
    return weighted_sum(part.tensors, shares, 1.0)
