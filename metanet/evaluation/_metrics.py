"""What is measured beside the loss."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import Registry
from ._signatures import check_takes


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


METRICS: Registry[Metric] = Registry(
    "metric", group="metanet.metrics", described=lambda metric: metric.measure
)
"""Every metric by its name."""


def metric(name: str, rises: bool = False, settle: Callable[[Tensor], float] = float) -> Callable:
    """Register a metric ``measure(scores, target)``; see :class:`Metric` for the arguments.

    Raises:
        MetanetError: there is one of this name, or the function does not take scores and classes.
    """

    def register(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        check_takes(measure, ("scores", "target"), f"metric {name!r}")
        METRICS.add(name, Metric(name, measure, settle, rises))
        return measure

    return register


def find_metrics(names: Iterable[str] | None) -> list[Metric]:
    """Metrics by name; all of them for ``None``.

    Raises:
        MetanetError: there is no such metric; the message lists the names.
    """
    if names is None:
        return list(METRICS.values())
    names = [names] if isinstance(names, str) else names
    return [METRICS.find(name) for name in names]


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
