"""What is measured beside the loss."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MetanetError


@dataclass(frozen=True)
class Metric:
    """A measure of classifications.

    Attributes:
        name: how results call it.
        measure: of scores ``(n, classes)`` and classes ``(n,)``, the mean over them: a number, or
            several.
        settle: makes one number of the means over all data.
        rises: larger is better.
    """

    name: str
    measure: Callable[[Tensor, Tensor], Tensor]
    settle: Callable[[Tensor], float]
    rises: bool


METRICS: dict[str, Metric] = {}
"""Every metric by its name."""


def metric(name: str, rises: bool = False, settle: Callable[[Tensor], float] = float) -> Callable:
    """Register a metric."""

    def register(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        METRICS[name] = Metric(name, measure, settle, rises)
        return measure

    return register


def find_metrics(names: Iterable[str] | None) -> list[Metric]:
    """Metrics by name; all of them for ``None``.

    Raises:
        MetanetError: there is no such metric; the message lists the names.
    """
    if names is None:
        return list(METRICS.values())
    if isinstance(names, str):
        names = [names]
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise MetanetError(
                f"there is no metric {name!r}. Choices: {', '.join(sorted(METRICS))}"
            )
    return [METRICS[name] for name in names]


@metric("accuracy", rises=True)
def accuracy(scores: Tensor, target: Tensor) -> Tensor:
    """Share of samples whose class has the highest score."""
    return (scores.argmax(-1) == target).float().mean()


_INVERSE_TEMPERATURES = tuple(2.0 ** (k / 4) for k in range(-8, 25))  # 1/4 ... 64, and 1 among them


@metric("calibrated_loss", settle=lambda means: float(means.min()))
def calibrated_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the scores scaled by the one factor that suits all the data best.

    Between two networks scores shrink, and the loss rises although the order of the scores is
    right: wide networks need only this and no alignment ("Do we really need permutations?", 2025,
    https://arxiv.org/abs/2510.08023).
    """
    scores = scores.float()
    return torch.stack([F.cross_entropy(scores * scale, target) for scale in _INVERSE_TEMPERATURES])
