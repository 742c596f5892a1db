"""Updates that keep what the old network gets right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MetanetError
from ...evaluation import Flips, Runner, flips, load, right_answers, wide, working_copy
from ...graph import real_parts
from ...progress import track
from ...tracing import is_integer
from .._average import average
from .._part import Part, Problem
from .._registry import PerModel, method
from ..statistics import as_good, fishers, mean_of, score


@dataclass(frozen=True)
class _Update:
    """How to interpolate: the old network's share, its importance by name, and the new ones'
    weights."""

    alpha: float
    importance: dict[str, Tensor] | None
    weights: list[float]

    def of(self, name: str, old: Tensor, new: list[Tensor]) -> Tensor:
        """One tensor."""
        start = average(new, self.weights, "bcwi")
        if self.importance is None or name not in self.importance or self.alpha in (0.0, 1.0):
            return torch.lerp(start, old, self.alpha)  # lerp: exactly new and old at the ends
        old_share = self.alpha * self.importance[name].to(old)
        return torch.lerp(start, old, old_share / (old_share + (1.0 - self.alpha)))


def prepare(
    problem: Problem,
    *,
    weights: PerModel = 1.0,
    alpha: float | None = None,
    importance: bool = False,
    tolerance: float = 0.0,
    steps: int = 20,
    measure: str | None = None,
    samples: int | None = None,
    labels: str = "auto",
) -> _Update:
    """Choose how much of the old network to keep: one module and one tensor of every model are in
    memory, and with importance one float32 for every parameter.

    Args:
        weights: how much of each new model, where there are several.
        alpha: share of the old model, 0 to 1; left out, it is chosen on the data: of all that score
            as well as the new one, that with the fewest negative flips, the largest of equals.
        importance: keep those parameters more that the old model's answers depend on (its diagonal
            Fisher information, scaled to the mean 1).
        tolerance: how much worse than the new model's the score may be.
        steps: how many shares are tried, evenly spaced.
        measure: the score: loss, or a metric; accuracy of classes, else the loss, if left out.
        samples: for the importance: at most so many of the data; all if left out.
        labels: for the importance, as method fisher has it: auto, expected, sampled, empirical.
    """
    if alpha is not None and (
        isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1
    ):
        raise MetanetError(
            f"method 'bcwi': alpha={alpha!r}: give 0 (the new model) to 1 (the old), or null to "
            "choose"
        )
    if not isinstance(steps, int) or steps < 1:
        raise MetanetError(f"method 'bcwi': steps={steps!r}: give 1 or more")
    sees = problem.model is not None and problem.data is not None
    if not sees and (alpha is None or importance):
        what = "choosing alpha" if alpha is None else "importance=true"
        raise MetanetError(
            f"method 'bcwi': {what} needs model=... and data=...; alpha=0.5, say, needs neither"
        )
    scales = None
    if importance:
        (scales,) = fishers(problem, [(None, "the old model")], samples=samples, labels=labels)
        mean = mean_of(scales)
        scales = {name: f / mean for name, f in scales.items()}
    if sees:
        alpha = _chosen(problem, alpha, scales, weights, tolerance, steps, measure)
    problem.report["alpha"] = alpha
    return _Update(alpha, scales, weights)  # type: ignore[arg-type]


def _shares(update: _Update, options: Mapping[str, Any], models: int) -> list[float]:
    if update.alpha:
        raise MetanetError(
            "method 'bcwi' keeps much of the old network, which is no goal of a repair: give "
            "bn_reset"
        )
    return update.weights


@method(
    "bcwi",
    reference="https://arxiv.org/abs/2301.10546",
    base="required",
    models=(1, None),
    prepare=prepare,
    shares=_shares,
)
def bcwi(part: Part) -> Tensor:
    r"""Backward-compatible interpolation from new to old, the base (Schumann et al. 2024).

    .. math::
        w = \frac{\alpha F \odot w_{old} + (1 - \alpha) w_{new}}{\alpha F + 1 - \alpha}

    with :math:`F = 1`, or the importance of each parameter to the old model; of several new models,
    the average is the new one. With data, the report has the negative flips (old right, new wrong)
    before and after.
    """
    return part.prepared.of(part.name, part.origin, list(part.tensors))


def _chosen(
    problem: Problem,
    alpha: float | None,
    scales: dict[str, Tensor] | None,
    weights: list[float],
    tolerance: float,
    steps: int,
    by: str | None,
) -> float:
    """The share of the old model; tells the report what it does to scores and flips."""
    network = working_copy(problem.network, problem.device)
    run = Runner(problem.device)
    load(network, problem.origin)
    right = right_answers(network, problem.batches, run)
    name, old, _ = score(problem, network, by)
    shares = [step / steps for step in range(steps + 1)] if alpha is None else [0.0, alpha]
    trials: list[_Trial] = []
    for share in track(shares, "shares of the old model", show=problem.progress):
        _interpolate(network, problem, _Update(share, scales, weights))
        _, value, rises = score(problem, network, by)
        is_asked = not trials or alpha is not None  # of others that are worse flips don't count
        if not is_asked and not as_good(value, trials[0].score, rises, tolerance):
            continue
        now = None if right is None else right_answers(network, problem.batches, run)
        turned = None if right is None or now is None else flips(right, now)
        trials.append(_Trial(share, value, turned))
    new, *others = trials
    candidates = others
    if alpha is None:
        candidates = [
            trial for trial in trials if as_good(trial.score, new.score, rises, tolerance)
        ]
    if not candidates:
        raise MetanetError(
            f"method 'bcwi': the new model's {name} is {new.score} on the data: nothing can be "
            "compared"
        )
    best = max(candidates, key=_Trial.rank)
    problem.report.update(
        {f"old {name}": old, f"new {name}": new.score, f"merged {name}": best.score}
    )
    for who, trial in (("new", new), ("merged", best)):
        if trial.flips is not None:
            problem.report[f"{who} negative flips"] = trial.flips.negative
            problem.report[f"{who} positive flips"] = trial.flips.positive
            problem.report[f"{who} negative flip rate"] = trial.flips.negative_rate
    return best.share


@dataclass(frozen=True)
class _Trial:
    """What a share of the old model comes to on the data."""

    share: float
    score: float
    flips: Flips | None

    def rank(self) -> tuple[int, float]:
        """The larger, the better: few negative flips, of equal ones much of the old model."""
        return (0 if self.flips is None else -self.flips.negative, self.share)


def _interpolate(network: nn.Module, problem: Problem, update: _Update) -> None:
    """Write a point between old and new into the network."""

    def read(name: str) -> Tensor:
        old = problem.origin[name]
        if is_integer(old.dtype):
            return old
        old, *new = wide([old, *(m[name] for m in problem.models)], problem.device)
        if not old.is_complex():
            return update.of(name, old, new)
        real = update.of(name, real_parts(old), list(map(real_parts, new)))
        return torch.view_as_complex(real)

    load(network, read)
