"""Whether a network that computes its own loss predicts the token in its place, or the next one."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MetanetError
from ._outputs import IGNORED, classified, tokens_of


def aligned_target(outputs: Any, target: Any) -> Any:
    """A target whose classes stand where the scores for them do.

    All but one class per token is returned as it is.

    Causal models move their labels inside, masked ones do not: which of the two it is shows in the
    network's own loss.

    Args:
        outputs: of one batch.
        target: of that batch.

    Raises:
        MetanetError: the network's own loss is the cross-entropy of neither.
    """
    pair = classified(outputs, target)
    if pair is None or not tokens_of(outputs, target):
        return target
    moved = torch.cat([target[:, 1:], torch.full_like(target[:, :1], IGNORED)], 1)
    if torch.equal(moved, target):  # nothing counts in either
        return target
    loss = float(outputs.loss.detach())
    candidates = [(target, pair), (moved, classified(outputs, moved))]
    distances = [
        (abs(_cross_entropy(*p) - loss), t) for t, p in candidates if p is not None and len(p[1])
    ]
    gap, nearest = min(distances, key=lambda pair_: pair_[0])
    if not gap <= 1e-3 * max(1.0, abs(loss)):
        raise MetanetError(
            f"the network's own loss ({loss:.4g}) is not the cross-entropy of its scores and "
            "labels, neither in place nor moved by one token, so that it can't be told which "
            "label belongs to which score: give labels that the network's loss takes as they "
            "are, or a method or option that reads the loss alone"
        )
    return nearest


def _cross_entropy(scores: Tensor, target: Tensor) -> float:
    return float(F.cross_entropy(scores.detach().float(), target))
