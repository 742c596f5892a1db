"""Matching many networks to each other's mean."""

import torch

from .._many import Universe, ascend_together
from .._registry import Match, Problem, matcher


@matcher("merge_many", many=True)
def match_to_mean(
    problem: Problem, *, restarts: int = 1, rounds: int = 100, max_sweeps: int = 100
) -> list[Match]:
    """MergeMany of Git Re-Basin (Ainsworth et al. 2022, https://arxiv.org/abs/2209.04836).

    In a random order each network is matched, by its weights, to the mean of all the others, until
    none gets closer. That may end with networks in several clusters: another order may not.

    Args:
        restarts: each with its own orders; the best one counts.
        rounds: bound on how often every network is matched.
        max_sweeps: bound on the passes over all groups within one matching.
    """
    universe = Universe(problem)
    generator = torch.Generator().manual_seed(problem.seed)
    start = list(universe.elements)
    best = start
    objective = [-float("inf")]
    for _ in range(max(1, restarts)):
        universe.elements = list(start)
        values = ascend_together(universe, generator, rounds, max_sweeps, fresh=True)
        if values[-1] > objective[-1]:
            best = universe.elements
            objective = values
    universe.elements = best
    return universe.matches(problem, objective)
