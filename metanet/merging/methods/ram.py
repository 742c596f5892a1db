"""Changes that models share are averaged, those of one model are kept."""

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from .._part import Part
from .._registry import method


@method("ram", reference="https://arxiv.org/abs/2601.13572", base="required")
def ram(part: Part, *, epsilon: float = 1e-5) -> Tensor:
    """Every element by the average of those models that changed it (Reinforced Agent Merging).

    Args:
        epsilon: smaller changes are none.
    """
    total, counts = torch.zeros_like(part.origin), torch.zeros_like(part.origin)
    for delta in part.deltas:
        changed = hardshrink(delta, epsilon)
        total += changed
        counts += changed.sign_().abs_()
    return total.div_(counts.clamp_(min=1)).add_(part.origin)
