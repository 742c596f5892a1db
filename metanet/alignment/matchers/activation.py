"""Activation matching."""

import torch

from .._activations import activation_terms
from .._elements import to_elements, to_transform
from .._moves import families, keys_of, movable_groups
from .._registry import Match, Problem, matcher
from .._terms import added_up, arrange_by_terms


@matcher("activation", needs=("arch", "model", "data"))
def match_activations(
    problem: Problem,
    *,
    by: str = "correlation",
    absolute: bool = False,
    positions: int = 4096,
    batches: int | None = None,
) -> Match:
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
