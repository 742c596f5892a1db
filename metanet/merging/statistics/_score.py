"""How good a network is on the data of a merge."""

from torch import nn

from ...errors import MetanetError
from ...evaluation import METRICS, Runner, find_loss, find_metrics, measure
from .._part import Problem

_ROUNDING = 1e-7  # of means in float32: as many right answers in other batches are as good


def score(problem: Problem, network: nn.Module, by: str | None) -> tuple[str, float, bool]:
    """What a network reaches on the data: the measure's name, its value, and whether larger is
    better.

    Args:
        by: a measure, or ``None``: accuracy where targets are classes, else the loss.

    Raises:
        MetanetError: there is no such measure, or the data's targets do not allow it.
    """
    if by not in (None, "loss", *METRICS):
        raise MetanetError(f"there is no measure {by!r}. Choices: {', '.join(('loss', *METRICS))}")
    metrics = find_metrics([] if by == "loss" else ["accuracy" if by is None else by])
    reached, _ = measure(
        network, problem.batches, find_loss(problem.loss), metrics, Runner(problem.device)
    )
    if by is None:
        by = "accuracy" if "accuracy" in reached else "loss"
    if by not in reached:
        raise MetanetError(
            f"{by} can't be measured: the data's targets are no classes of samples; give "
            "measure=loss"
        )
    return by, reached[by], by != "loss" and METRICS[by].rises


def as_good(value: float, other: float, rises: bool, tolerance: float = 0.0) -> bool:
    """Whether a score is no worse than another, up to rounding."""
    gain = value - other if rises else other - value
    return gain >= -tolerance - _ROUNDING * max(1.0, abs(other))
