"""Averages of those models that get better together."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from torch import Tensor

from ...errors import MetanetError
from ...evaluation import load, working_copy
from ...progress import Progress, track
from .._average import average
from .._network import averaged
from .._part import Part, Problem
from .._registry import method
from ..statistics import as_good, score


def prepare(problem: Problem, *, measure: str | None = None) -> list[int]:
    """Which models are in the soup, the best first: one module and one tensor of every model are in
    memory.

    Args:
        measure: on the data: loss, or a metric (accuracy, calibrated_loss); accuracy of classes,
            else the loss, if left out.
    """
    count = len(problem.models)
    bar: Progress[Any] = track(
        what="greedy soup", total=2 * count - 1, unit="soups", show=problem.progress
    )
    with bar:
        tasting = _Tasting(problem, measure, bar)
        alone = [tasting.good([number]) for number in range(count)]
        # stable: of equally good ones the first
        first, *others = sorted(range(count), key=lambda number: -alone[number])
        if not isfinite(alone[first]):
            raise MetanetError(
                f"method 'greedy_soup': the {tasting.measure} of every model is infinite or NaN on "
                "the data"
            )
        soup = [first]
        best = alone[first]
        for number in others:
            value = tasting.good([*soup, number])
            if as_good(value, best, rises=True):
                soup.append(number)
                best = value
    sign = 1.0 if tasting.rises else -1.0
    for number, value in enumerate(alone):
        problem.report[f"model {number} {tasting.measure}"] = sign * value
    problem.report[f"soup {tasting.measure}"] = sign * best
    problem.report["models in the soup"] = ", ".join(map(str, soup))
    return soup


class _Tasting:
    """How good averages of models are on the data.

    Attributes:
        measure: by what they are measured.
        rises: whether larger is better.
    """

    def __init__(self, problem: Problem, measure: str | None, bar: Progress[Any]) -> None:
        self.problem = problem
        self.network = working_copy(problem.network, problem.device)
        self.asked = measure
        self.bar = bar
        self.measure = ""
        self.rises = False

    def good(self, numbers: Sequence[int]) -> float:
        """The score of an average, turned so that larger is better; ``-inf`` if not finite."""
        equal = [1.0] * len(numbers)
        load(self.network, averaged(self.problem, numbers, equal, "greedy_soup"))
        self.measure, value, self.rises = score(self.problem, self.network, self.asked)
        self.bar.update()
        if not isfinite(value):
            return float("-inf")
        return value if self.rises else -value


def _shares(chosen: list[int], options: Mapping[str, Any], models: int) -> list[float]:
    return [float(k in chosen) for k in range(models)]


@method(
    "greedy_soup",
    reference="https://arxiv.org/abs/2203.05482",
    needs=("model", "data"),
    prepare=prepare,
    shares=_shares,
)
def greedy_soup(part: Part) -> Tensor:
    """The best model, averaged with others that don't make it worse (Wortsman et al. 2022).

    Models are tried in the order of their scores on held-out data; each is kept if the average with
    it is at least as good as without.
    """
    soup = [part.tensors[number] for number in part.prepared]
    return average(soup, [1.0] * len(soup), "greedy_soup")
