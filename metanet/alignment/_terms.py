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
        free = sorted(
            (i for i, g in enumerate(groups) if g in movable), key=lambda i: len(keys[groups[i]])
        )
        names = [groups[i] for i in free]
        if not free or len(set(names)) < len(names):
            continue
        wanted = {k for g in names for k in keys[g]} - {*names}
        if not wanted <= {*groups}:  # whose neurons these are lies along another axis
            continue
        batch = [i for i, g in enumerate(groups) if g in wanted]
        flat, n = places.flatten(), len(factors)
        part = scores[flat][:, flat].reshape(*places.shape, *places.shape).cpu().numpy()
        old = [
            i + n if i in free else i for i in range(n)
        ]  # a fixed place stays, so only its own scores count
        out = np.einsum(part, [*range(n), *old], [*batch, *free, *(i + n for i in free)])
        yield Term(tuple(groups[i] for i in batch), tuple(names), out)


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
    own = [[t for t in terms if set(t.free) & set(free)] for free in families]
    meet = any(set(t.free) - set(free) for free, ts in zip(families, own, strict=True) for t in ts)
    while True:
        before = trace[-1]
        for free, earned in zip(families, own, strict=True):
            if not earned:
                continue
            held = [others_held(t, free, now, keys) for t in earned]
            _, found = solve([g for g in free if any(g in t.free for t in held)], held, keys, now)
            after = {g: Element(keys[g], in_order(e, keys[g])) for g, e in found.items()}
            gain = score(earned, {**now, **after}) - score(earned, now)
            if gain > 1e-12 * abs(trace[0]):
                now |= after
                trace.append(trace[-1] + gain)
        if not meet or trace[-1] == before:
            return {g: e.items for g, e in now.items()}, trace


def others_held(
    term: Term, free: Sequence[str], elements: Mapping[str, Element], keys: Keys
) -> Term:
    """A term with all groups arranged but those of a family."""
    for group in reversed(term.free):
        if group not in free:
            keyed = any(group in keys[g] for g in term.free if g in free)
            term = term.holding(group, elements[group], keep=keyed)
    return term
