"""What groups earn by how alike their neurons vary on data."""

from collections import defaultdict
from itertools import islice

from ..errors import MetanetError
from ..symmetry import Axis
from ._moments import Moments
from ._moves import keys_of, movable_groups
from ._registry import Problem
from ._running import NeuronRunner
from ._terms import terms_of
from ._wreath import Term


def activation_terms(
    problem: Problem,
    by: str,
    absolute: bool = False,
    positions: int | None = None,
    batches: int | None = None,
) -> list[Term]:
    """What groups earn by how alike their neurons vary in both networks, one term or more for every
    place they show.

    Raises:
        MetanetError: no such measure, no data.
    """
    if by not in ("correlation", "covariance"):
        raise MetanetError(f"by={by!r}: activations are matched by 'correlation' or 'covariance'")
    moments: dict[tuple[int, Axis], Moments] = defaultdict(Moments)
    runner = NeuronRunner(problem.architecture, problem.network, problem.device)
    data = islice(problem.batches, batches)
    for shown in runner.samples(problem.pair, data, positions):
        for place, (tap, (a, b)) in enumerate(shown):
            moments[place, tap.neurons].add(a, b)
    keys = keys_of(problem.spec)
    movable = movable_groups(problem.spec, keys, keys)
    terms: list[Term] = []
    for (_, neurons), sums in moments.items():
        scores = sums.correlations() if by == "correlation" else sums.covariances()[0]
        terms += terms_of(scores.abs() if absolute else scores, neurons, keys, movable)
    return terms
