"""What an update changes for the samples: right answers lost, and wrong ones mended."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MetanetError
from ._outputs import classified, target_of
from ._running import Runner, to_device
from ._tokens import aligned_target


@dataclass(frozen=True)
class Flips:
    """How answers differ between an old and a new network.

    After Yan et al. 2021, https://arxiv.org/abs/2011.09161.

    Attributes:
        samples: that both were asked.
        negative: the old one was right, the new one is wrong.
        positive: the other way round.
    """

    samples: int
    negative: int
    positive: int

    @property
    def negative_rate(self) -> float:
        """Negative flips as a share of all samples."""
        return self.negative / self.samples

    @property
    def positive_rate(self) -> float:
        """Positive flips as a share of all samples."""
        return self.positive / self.samples


def flips(old: Tensor, new: Tensor) -> Flips:
    """Compare two networks' answers to the same samples.

    >>> import torch
    >>> flips(torch.tensor([True, True, False]), torch.tensor([True, False, True]))
    Flips(samples=3, negative=1, positive=1)

    Args:
        old, new: whether each answer is right ``(n,)``, of :func:`right_answers`.

    Raises:
        MetanetError: they are of different samples, or of none.
    """
    if old.shape != new.shape or old.ndim != 1 or not len(old):
        raise MetanetError(
            f"flips compares answers to the same samples, got {tuple(old.shape)} and {tuple(new.shape)}"
        )
    return Flips(len(old), int((old & ~new).sum()), int((~old & new).sum()))


def right_answers(model: nn.Module, data: Iterable[Any], run: Runner) -> Tensor | None:
    """Whether the class of the highest score is the target ``(n,)``; per token for language models.

    ``None`` if the targets are no classes.

    Args:
        model: in eval mode.
        data: batches in an order that does not change.
        run: on the model's device.
    """
    answers = []
    with torch.no_grad():
        for batch in data:
            outputs = run(model, batch)
            target = to_device(target_of(batch), run.device)
            pair = classified(outputs, aligned_target(outputs, target))
            if pair is None:
                return None
            scores, target = pair
            answers.append((scores.argmax(-1) == target).cpu())
    return torch.cat(answers) if answers else None
