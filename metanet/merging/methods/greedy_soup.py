"""Averages of those models that get better together."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from torch import Tensor

from ...errors import MetanetError
from ...progress import track
from .._average import average
from .._network import averaged, load, working_copy
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
    network, count = working_copy(problem), len(problem.models)
    with track(what="greedy soup", total=2 * count - 1, unit="soups", show=problem.progress) as bar:

        def reached(chosen: list[int]) -> float:
            nonlocal name, rises
            load(network, averaged(problem, chosen, [1.0] * len(chosen), "greedy_soup"))
            name, value, rises = score(problem, network, measure)
            bar.update()
            return (value if rises else -value) if isfinite(value) else float("-inf")

        name, rises = "", False
        alone = [reached([k]) for k in range(count)]
        order = sorted(
            range(count), key=lambda k: -alone[k]
        )  # stable: of equally good ones the first
        chosen, best = order[:1], alone[order[0]]
        if not isfinite(best):
            raise MetanetError(
                f"method 'greedy_soup': the {name} of every model is infinite or NaN on the data"
            )
        for k in order[1:]:
            value = reached([*chosen, k])
            if as_good(value, best, rises=True):
                chosen, best = [*chosen, k], value
    sign = 1.0 if rises else -1.0
    problem.report.update({f"model {k} {name}": sign * value for k, value in enumerate(alone)})
    problem.report.update(
        {f"soup {name}": sign * best, "models in the soup": ", ".join(map(str, chosen))}
    )
    return chosen


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
    return average(
        [part.tensors[k] for k in part.prepared], [1.0] * len(part.prepared), "greedy_soup"
    )
