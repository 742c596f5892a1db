"""What a network's outputs and a batch's target are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import MetanetError
from ..tracing import tensors_in

IGNORED = -100  # the class that cross-entropy and transformers leave out
_CLASSES = (torch.int16, torch.int32, torch.int64, torch.uint8)


def target_of(batch: Any) -> Any:
    """The second of ``(inputs, target)``, or ``labels`` of a dict; ``None`` where there is none."""
    if isinstance(batch, Mapping):
        return batch.get("labels")
    return batch[1] if len(batch) > 1 else None


def scores_of(outputs: Any) -> Tensor:
    """The one tensor that counts: ``logits`` where the outputs have them, else the first.

    Raises:
        MetanetError: there is no tensor in the outputs.
    """
    scores = getattr(outputs, "logits", outputs)
    scores = scores if isinstance(scores, Tensor) else next(tensors_in(scores), None)
    if scores is None:
        raise MetanetError(f"the network returned {type(outputs).__name__} without a tensor")
    return scores


def classified(outputs: Any, target: Any) -> tuple[Tensor, Tensor] | None:
    """Scores ``(n, classes)`` and classes ``(n,)``, without ignored places.

    ``None`` if the target is no classes.

    Raises:
        MetanetError: a class for which there is no score.
    """
    if not isinstance(target, Tensor) or target.dtype not in _CLASSES:
        return None
    scores = scores_of(outputs)
    if scores.ndim == 0:
        return None
    if target.shape == scores.shape[:-1]:  # classes last: (N, C) or (N, T, C)
        scores = scores.flatten(0, -2)
    elif scores.ndim > 1 and target.shape == (scores.shape[0], *scores.shape[2:]):
        scores = scores.movedim(1, -1).flatten(0, -2)  # classes second: (N, C, H, W)
    else:
        return None
    target = target.flatten().long()
    counted = target != IGNORED
    scores = scores[counted]
    target = target[counted]
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < scores.shape[-1]:
        raise MetanetError(
            f"the data has classes from {int(target.min())} to {int(target.max())}, but the "
            f"network has scores for {scores.shape[-1]}: is it the data that the network was "
            "made for?"
        )
    return scores, target


def tokens_of(outputs: Any, target: Any) -> bool:
    """Whether the target is one class per token of a network that computes its own loss.

    Causal models shift their labels inside, masked ones do not: only the network knows which.
    """
    return (
        getattr(outputs, "loss", None) is not None
        and isinstance(target, Tensor)
        and target.ndim > 1
    )
