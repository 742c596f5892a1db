"""Activation matching."""

from collections import defaultdict
from itertools import islice

import torch

from ..errors import MetanetError
from ..symmetry import Axis
from ._moments import Moments
from ._moves import families, keys_of, movable_groups
from ._registry import Match, Problem, matcher
from ._running import NeuronRunner
from ._terms import added_up, arrange_by_terms, terms_of
from ._weight import to_elements, to_transform
from ._wreath import Term


@matcher("activation", needs=("arch", "model", "data"))
def match_activations(
    problem: Problem, *, by: str = "correlation", absolute: bool = False, positions: int = 4096,
    batches: int | None = None,
) -> Match:  # fmt: skip
    """Activation matching of Git Re-Basin (Ainsworth et al. 2022,
    https://arxiv.org/abs/2209.04836), for any spec.

    Neurons that vary alike on the same data belong together. Correlations of centred activations
    are gathered in one pass, at every place where a group's neurons show (:mod:`._taps`: each
    layer's outputs, and every sum of a residual stream), and added up: a group's places then decide
    together. Heads are matched with their dims, as weights are.

    Args:
        by: ``"correlation"`` or ``"covariance"``, by which neurons that vary more count more.
        absolute: match neurons of opposite sign too, for odd activation functions.
        positions: at most so many samples (of images x places, sequences x tokens) per layer and
            batch.
        batches: stop after so many.
    """
    spec = problem.spec
    keys = keys_of(spec)
    movable = movable_groups(spec, keys, keys)
    terms = added_up(activation_terms(problem, by, absolute, positions, batches))
    seen = {g for t in terms for g in t.free}
    start = {g: e.numpy() for g, e in to_elements(spec.identity(), keys).items()}
    arranged, objective = arrange_by_terms(terms, families(movable, keys), keys, start)
    elements = {g: torch.from_numpy(e) for g, e in arranged.items()}
    untold = {
        g: "its neurons show nowhere along one axis of a value" for g in movable if g not in seen
    }
    return Match(to_transform(elements, spec), tuple(objective), untold)


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
    runner = NeuronRunner(problem.arch, problem.model, problem.device)
    sides = (problem.reference, problem.moving[0])
    for shown in runner.samples(sides, islice(problem.data, batches), positions):
        for place, (tap, (a, b)) in enumerate(shown):
            moments[place, tap.neurons].add(a, b)
    keys = keys_of(problem.spec)
    movable = movable_groups(problem.spec, keys, keys)
    terms: list[Term] = []
    for (_, neurons), each in moments.items():
        scores = each.correlations() if by == "correlation" else each.covariances()[0]
        terms += terms_of(scores.abs() if absolute else scores, neurons, keys, movable)
    return terms
