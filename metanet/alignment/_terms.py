"""Arranging groups by scores between neurons, where every set of neurons has its own."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from ..symmetry import Axis, Fixed, Leaf
from ._moves import Keys
from ._pieces import cut_axis
from ._wreath import Element, Term, in_order, score, solve


def terms_of(scores: Tensor, neurons: Axis, keys: Keys, movable: Sequence[str]) -> Iterator[Term]:
    """What groups earn at one set of neurons.

    Args:
        scores: ``(neurons, neurons)``.
        neurons: what they are made of.
        movable: the groups that can be arranged.
    """
    for factors, places in cut_axis(neurons):
        groups = [f.group if isinstance(f, (Leaf, Fixed)) else "" for f in factors]
        free = [axis for axis, group in enumerate(groups) if group in movable]
        free.sort(key=lambda axis: len(keys[groups[axis]]))
        names = tuple(groups[axis] for axis in free)
        if not names or len(set(names)) < len(names):
            continue
        above = {key for name in names for key in keys[name]}.difference(names)
        if not above.issubset(groups):  # whose neurons these are lies along another axis
            continue
        batch = [axis for axis, group in enumerate(groups) if group in above]
        # A fixed place stays, so only its own scores count. For heads (fixed) x dims:
        #   part[head, dim, head, old dim]  ->  out[head, dim, old dim]
        new_axes = [*range(len(factors))]
        old_axes = [axis + len(factors) if axis in free else axis for axis in new_axes]
        flat = places.flatten()
        part = scores[flat][:, flat].reshape(*places.shape, *places.shape).cpu().numpy()
        out_axes = [*batch, *free, *(old_axes[axis] for axis in free)]
        out = np.einsum(part, [*new_axes, *old_axes], out_axes)
        yield Term(tuple(groups[axis] for axis in batch), names, out)


def added_up(terms: Sequence[Term]) -> list[Term]:
    """One term for all that are of the same groups."""
    sums: dict[tuple[tuple[str, ...], tuple[str, ...]], np.ndarray] = {}
    for t in terms:
        key = (t.batch, t.free)
        sums[key] = sums[key] + t.scores if key in sums else t.scores
    return [Term(*key, scores) for key, scores in sums.items()]


def arrange_by_terms(
    terms: Sequence[Term],
    families: Sequence[Sequence[str]],
    keys: Keys,
    elements: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The arrangement of all groups that earns most.

    Besides it the score at the start and after every step that raised it.

    One family of groups after the other; once is enough where no two families meet in a term.
    """
    now = {g: Element(keys[g], e) for g, e in elements.items()}
    trace = [score(terms, now)]
    steps = []
    for family in families:
        of_family = [t for t in terms if not set(t.free).isdisjoint(family)]
        if of_family:
            steps.append((family, of_family))
    meet = any(set(t.free).difference(family) for family, of_family in steps for t in of_family)
    while True:
        before = trace[-1]
        for family, of_family in steps:
            after = now | _arranged(family, of_family, now, keys)
            gain = score(of_family, after) - score(of_family, now)
            if gain > 1e-12 * abs(trace[0]):
                now = after
                trace.append(trace[-1] + gain)
        if not meet or trace[-1] == before:
            return {g: e.items for g, e in now.items()}, trace


def _arranged(
    family: Sequence[str], terms: Sequence[Term], now: Mapping[str, Element], keys: Keys
) -> dict[str, Element]:
    """The groups of a family that earn something, all others held."""
    held = [others_held(t, family, now, keys) for t in terms]
    free = [g for g in family if any(g in t.free for t in held)]
    _, arranged = solve(free, held, keys, now)
    return {g: Element(keys[g], in_order(e, keys[g])) for g, e in arranged.items()}


def others_held(
    term: Term, free: Sequence[str], elements: Mapping[str, Element], keys: Keys
) -> Term:
    """A term with all groups arranged but those of a family."""
    for group in reversed(term.free):
        if group in free:
            continue
        keys_free = any(group in keys[g] for g in term.free if g in free)
        term = term.holding(group, elements[group], keep=keys_free)
    return term
