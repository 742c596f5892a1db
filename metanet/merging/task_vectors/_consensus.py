"""Task vectors of several models made one: summed, or only those that agree on the sign."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from ._vector import TaskVector, buffers, chunks

CONSENSUS = ("sum", "count")
_NOTHING = 1e-8  # weights with a smaller sum divide nothing


def summed(
    part: Part,
    vectors: Sequence[TaskVector],
    weights: Sequence[float],
    normalize: bool,
    scale: float,
) -> Tensor:
    """The base plus the weighted sum of task vectors.

    Args:
        normalize: divide by the sum of the weights, unless that is 0.
        scale: of the sum.
    """
    total = sum(weights)
    if normalize and abs(total) >= _NOTHING:
        scale = scale / total
    base = part.origin.reshape(-1)
    out = torch.empty_like(base)
    memory = buffers(base, 2)
    for start, stop in chunks(base):
        back, mixed = memory[:, : stop - start]
        mixed.zero_()
        for vector, weight in zip(vectors, weights, strict=True):
            mixed.add_(vector.back(start, back), alpha=weight * vector.factor)
        torch.sub(base[start:stop], mixed, alpha=scale, out=out[start:stop])
    return out.view(part.origin.shape)


def elected(
    part: Part,
    vectors: Sequence[TaskVector],
    weights: Sequence[float],
    consensus: str,
    normalize: bool,
    scale: float,
) -> Tensor:
    """The base plus the weighted sum of those entries whose sign wins (Yadav et al. 2023).

    Args:
        consensus: the sign that wins is that of the ``"sum"`` of the weighted entries, or that
            which most models have (``"count"``); at 0 it is plus.
        normalize: divide every entry by the sum of the weights of the models that have the winning
            sign.
        scale: of the result of it.
    """
    if consensus not in CONSENSUS:
        raise MetanetError(f"consensus={consensus!r}: give one of {', '.join(CONSENSUS)}")
    # What counts nothing must not be counted as a winner.
    voters = [
        (v, w * v.factor, abs(w)) for v, w in zip(vectors, weights, strict=True) if w * v.factor
    ]
    base = part.origin.reshape(-1)
    out = torch.empty_like(base)
    memory = buffers(base, 4 + len(voters))
    one = base.new_ones(())
    for start, stop in chunks(base):
        mixed, total, vote, sign, *backs = memory[:, : stop - start]
        mixed.zero_(), total.zero_(), vote.zero_()
        for k, (vector, weight, _) in enumerate(voters):
            backs[k] = vector.back(start, backs[k])
            if consensus == "sum":
                vote.sub_(backs[k], alpha=weight)
            else:
                vote.sub_(torch.sign(backs[k], out=sign), alpha=1 if weight > 0 else -1)
        torch.copysign(one, vote, out=sign)
        for back, (_, weight, share) in zip(backs, voters, strict=True):
            # Ways back that are turned by the winning sign and the weight's are negative where they
            # have won.
            wins = back.mul_(sign)
            wins = wins.clamp_max_(0) if weight > 0 else wins.clamp_min_(0)
            mixed.add_(wins, alpha=weight)
            if normalize:
                total.sub_(wins.sign_(), alpha=share)
        if normalize:
            # 1 where the sum is 0: nothing has won, or weights cancel out.
            mixed.div_(total.sub_(torch.sign(total, out=vote).abs_().sub_(1)))
        torch.sub(base[start:stop], mixed.mul_(sign), alpha=scale, out=out[start:stop])
    return out.view(part.origin.shape)
