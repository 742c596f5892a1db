"""Losses by name."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..errors import MetanetError
from ..registry import Registry
from ._outputs import classified, scores_of
from ._signatures import check_takes

Loss = Callable[[Any, Any], Tensor]
"""Of outputs and target: the mean over a batch."""

LOSSES: Registry[Loss] = Registry("loss", group="metanet.losses")
"""Every named loss: of outputs and target, the mean over a batch."""


def loss(name: str) -> Callable[[Loss], Loss]:
    """Register a loss ``function(outputs, target)``: the mean over a batch, as one number.

    Args:
        name: in ``metanet.barrier(..., loss=name)``, ``metanet.merge``, ``metanet.align``, and for
            ``loss=`` of the commands.

    Raises:
        MetanetError: there is one of this name, or the function does not take outputs and target.
    """

    def register(function: Loss) -> Loss:
        check_takes(function, ("outputs", "target"), f"loss {name!r}")
        return LOSSES.add(name, function)

    return register


def find_loss(given: str | Loss | None) -> Loss:
    """A loss by its name, or by the module of one's own that registers it.

    A function is taken as it is, ``None`` goes by the kind of outputs and target.

    Raises:
        MetanetError: there is no such loss; the message lists the names.
    """
    if given is None:
        return default_loss
    if callable(given):
        return given
    return LOSSES.find(given)


def default_loss(outputs: Any, target: Any) -> Tensor:
    """The network's own loss, or one that the kind of target decides.

    Cross-entropy for integer targets, squared error for numbers.

    Raises:
        MetanetError: the target is of another kind.
    """
    mean = getattr(outputs, "loss", None)
    if isinstance(mean, Tensor):
        return mean
    scores = scores_of(outputs)
    if not isinstance(target, Tensor):
        raise _unknown(scores, f"target {target!r:.40}")
    if target.is_floating_point():
        if target.shape == scores.shape:
            return F.mse_loss(scores, target)
    elif target.shape == scores.shape[:-1]:  # classes last: (N, T, C) and (N, T)
        return F.cross_entropy(scores.flatten(0, -2), target.flatten().long())
    elif target.ndim == scores.ndim - 1:  # classes second: (N, C, H, W) and (N, H, W)
        return F.cross_entropy(scores, target.long())
    raise _unknown(scores, f"a target {tuple(target.shape)} {target.dtype}")


def _unknown(scores: Tensor, target: str) -> MetanetError:
    return MetanetError(
        f"no loss is known for outputs {tuple(scores.shape)} and {target}: "
        "give loss=function(outputs, target)"
    )


@loss("cross_entropy")
def cross_entropy(outputs: Any, target: Any) -> Tensor:
    """Of scores and classes, whatever loss the network itself returns."""
    pair = classified(outputs, target)
    if pair is None:
        raise _misfit("cross_entropy", "one class per sample", outputs, target)
    return F.cross_entropy(*pair)


@loss("mse")
def mean_squared_error(outputs: Any, target: Any) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(*_numbers("mse", outputs, target))


@loss("l1")
def mean_absolute_error(outputs: Any, target: Any) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(*_numbers("l1", outputs, target))


@loss("binary_cross_entropy")
def binary_cross_entropy(outputs: Any, target: Any) -> Tensor:
    """Of scores before the sigmoid and truth values, one or several labels per sample."""
    return F.binary_cross_entropy_with_logits(*_numbers("binary_cross_entropy", outputs, target))


@loss("own")
def own(outputs: Any, target: Any) -> Tensor:
    """The loss that the network returns."""
    mean = getattr(outputs, "loss", None)
    if not isinstance(mean, Tensor):
        raise MetanetError(
            f"loss 'own': the network returned {type(outputs).__name__} without a loss; "
            "transformers compute one if the data has labels"
        )
    return mean


def _numbers(name: str, outputs: Any, target: Any) -> tuple[Tensor, Tensor]:
    scores = scores_of(outputs)
    same_count = isinstance(target, Tensor) and target.numel() == scores.numel()
    if not same_count or len(target) != len(scores):
        raise _misfit(name, "as many numbers as there are outputs", outputs, target)
    return scores, target.reshape(scores.shape).to(scores.dtype)


def _misfit(name: str, needs: str, outputs: Any, target: Any) -> MetanetError:
    if isinstance(target, Tensor):
        shown = f"{tuple(target.shape)} {target.dtype}"
    else:
        shown = f"{target!r:.40}"
    shape = tuple(scores_of(outputs).shape)
    return MetanetError(f"loss {name!r} needs {needs}: outputs are {shape}, the target {shown}")
