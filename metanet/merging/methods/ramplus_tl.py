"""As ram, and changes of one model alone are strengthened."""

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from .._part import Part
from .._registry import method


@method("ramplus_tl", reference="https://arxiv.org/abs/2601.13572", base="required")
def ramplus_tl(part: Part, *, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5) -> Tensor:
    """As ``ram``; a model's own changes grow with what it shares (Reinforced Agent Merging Plus).

    A model's own changes are multiplied by 1 + r min(shared / own, alpha), counted in this tensor.

    Args:
        r: how much they grow with the ratio of shared to own changes.
        alpha: the ratio from which on they grow no more.
        epsilon: smaller changes are none.
    """
    counts, total, strengthened = (torch.zeros_like(part.origin) for _ in range(3))
    for delta in part.deltas:
        changed = hardshrink(delta, epsilon)
        total += changed
        counts += changed.sign_().abs_()
    single = counts == 1
    for delta in part.deltas:
        changed = hardshrink(delta, epsilon)
        every = int(changed.count_nonzero())
        single_changes = changed.masked_fill_(single.logical_not(), 0)
        alone = int(single_changes.count_nonzero())
        if alone:
            strengthened.add_(single_changes, alpha=r * min((every - alone) / alone, alpha))
    return total.div_(counts.clamp_(min=1)).add_(strengthened).add_(part.origin)
