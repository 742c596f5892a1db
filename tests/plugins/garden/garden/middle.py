"""A merge method: the median of all models, entry by entry."""

import torch
from torch import Tensor

from metanet.merging import Part, method


@method("middle")
def middle(part: Part, *, share: float = 1.0) -> Tensor:
    """The median of all models.

    Args:
        share: of the median in the result; the rest is the mean.
    """
    stacked = torch.stack(part.tensors)
    return share * stacked.quantile(0.5, dim=0) + (1 - share) * stacked.mean(0)
