"""Whether a network that computes its own loss predicts the token in its place, or the next one."""

import math
from operator import itemgetter
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
    # labels  in place   a b c d    scores for a b c d: the loss of a masked model
    #         moved      b c d -    scores for b c d:   the loss of a causal one
    loss = float(outputs.loss.detach())
    gaps = [
        (_gap(loss, pair), target),
        (_gap(loss, classified(outputs, moved)), moved),
    ]
    gap, nearest = min(gaps, key=itemgetter(0))
    if not gap <= 1e-3 * max(1.0, abs(loss)):
        raise MetanetError(
            f"the network's own loss ({loss:.4g}) is not the cross-entropy of its scores and "
            "labels, neither in place nor moved by one token, so that it can't be told which "
            "label belongs to which score: give labels that the network's loss takes as they "
            "are, or a method or option that reads the loss alone"
        )
    return nearest


def _gap(loss: float, pair: tuple[Tensor, Tensor] | None) -> float:
    """How far the cross-entropy of scores and classes is from a loss; infinite where none counts."""
    if pair is None or not len(pair[1]):
        return math.inf
    scores, target = pair
    return abs(float(F.cross_entropy(scores.detach().float(), target)) - loss)
