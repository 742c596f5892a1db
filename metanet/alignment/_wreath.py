"""Assignment of groups that hang on each other: heads and the dims within them, experts and their
hidden units.

The dims of head j go along when it takes the place of head i, and how well they then fit depends on
how they are arranged. So for every pair of heads the dims are assigned first, which tells what the
pair is worth, then the heads are. The result is the best element of the wreath product, whatever
its depth. Two groups within one key that also meet in one tensor (query heads and value dims within
a key-value head) are a bilinear problem without a known exact solution: they are assigned in turns
until nothing improves, from several starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Protocol

import numpy as np

from ._assignment import Prices, assign, total

_TURNS = 20  # each is an ascent, so that this is only a bound


@dataclass(frozen=True, slots=True)
class Term:
    """Scores that several free groups earn together.

    Attributes:
        batch: groups that are not free, but key some that are.
        free: free groups, keys before what they key.
        scores: ``(*batch, *free, *free)``: new items, then old items, of the free groups.
    """

    batch: tuple[str, ...]
    free: tuple[str, ...]
    scores: np.ndarray

    def at(self, group: str, new: int, old: int) -> "Term":
        """Where the new item ``new`` of a free group is its old item ``old``."""
        b, place = len(self.batch), self.free.index(group)
        index: list[slice | int] = [slice(None)] * self.scores.ndim
        index[b + place], index[b + len(self.free) + place] = new, old
        return Term(
            self.batch, tuple(g for g in self.free if g != group), self.scores[tuple(index)]
        )

    def inside(self, at: Mapping[str, int]) -> "Term":
        """At one item of some of the batch groups."""
        index = tuple(at.get(g, slice(None)) for g in self.batch)
        return Term(tuple(g for g in self.batch if g not in at), self.free, self.scores[index])

    def holding(self, group: str, element: "Element", keep: bool = False) -> "Term":
        """With one of the free groups, which keys no free one, arranged by ``element``.

        Args:
            keep: the group does key free ones, and goes to the batch.
        """
        b, f, place = len(self.batch), len(self.free), self.free.index(group)
        labels, names = (*self.batch, *self.free), (*element.keys, group)
        shape = [1] * self.scores.ndim
        for name, size in zip(names, element.items.shape, strict=True):
            shape[labels.index(name)] = size
        order = sorted(range(len(names)), key=lambda d: labels.index(names[d]))
        picks = element.items.transpose(order).reshape(shape)
        chosen = np.take_along_axis(self.scores, picks, b + f + place).squeeze(b + f + place)
        rest = tuple(g for g in self.free if g != group)
        if keep:
            return Term((*self.batch, group), rest, np.moveaxis(chosen, b + place, b))
        return Term(self.batch, rest, chosen.sum(b + place))


@dataclass(frozen=True, slots=True)
class Element:
    """Old items of the new ones, ``(*keys, size)``, looked up by the new items of those keys that
    are undecided."""

    keys: tuple[str, ...]
    items: np.ndarray

    def at(self, key: str, item: int) -> "Element":
        """At one item of a key; itself if it does not depend on it."""
        if key not in self.keys:
            return self
        place = self.keys.index(key)
        return Element(tuple(k for k in self.keys if k != key), self.items.take(item, place))


Elements = Mapping[str, Element]


class Source(Protocol):
    """Gives the terms of the groups under a root, for a pair of its items."""

    def __call__(self, new: int, old: int) -> Sequence[Term]: ...


def solve(
    free: Sequence[str], terms: Sequence[Term], keys: Mapping[str, Sequence[str]], start: Elements,
    prices: Prices | None = None,
) -> tuple[float, dict[str, Element]]:  # fmt: skip
    """The arrangement of the free groups with the largest total score, and that score.

    Args:
        free: groups to be arranged, keys before what they key.
        terms: what they earn.
        keys: of every group.
        start: an arrangement that the result is never worse than; may be empty.
        prices: of the last solution, for one group that hangs on nothing and has nothing hanging on
            it.
    """
    if prices is not None and len(free) == 1 and not any(t.batch for t in terms):
        alone = reduce(np.add, [term.scores for term in terms])
        columns = assign(alone, prices)
        return float(total(alone, columns)), {free[0]: Element((), columns)}
    value = 0.0
    elements: dict[str, Element] = {}
    for part in _components(free, terms, keys):
        earned = [t for t in terms if t.free and t.free[0] in part]
        roots = [g for g in part if not set(keys[g]) & set(part)]
        if len(roots) > 1:
            gain, found = _in_turns(part, roots, earned, keys, start)
        else:
            gain, found = _under_root(part, earned, keys, start)
        value += gain
        elements |= found
    return value, elements


def solve_root(
    root: str, rest: Sequence[str], scores: np.ndarray, source: Source, keys: Mapping[str, Sequence[str]],
    start: Elements,
) -> tuple[float, dict[str, Element]]:  # fmt: skip
    """The same for one group and others that all hang on it.

    Args:
        root, rest: the groups, keys before what they key.
        scores: what the root earns by itself, ``(size, size)``.
        source: what the others earn for a pair of its items.
    """
    size = len(scores)
    if not rest:
        columns = assign(scores)
        return float(total(scores, columns)), {root: Element((), columns)}
    worth, inner = scores.astype(np.float64), {}
    for new, old in product(range(size), repeat=2):
        begin = {}
        if root in start and start[root].items[new] == old:
            begin = {g: start[g].at(root, new) for g in rest if g in start}
        value, inner[new, old] = solve(rest, source(new, old), keys, begin)
        worth[new, old] += value
    columns = assign(worth)
    chosen = [inner[new, int(old)] for new, old in enumerate(columns)]
    elements = {root: Element((), columns)}
    for g in rest:
        elements[g] = Element((root, *chosen[0][g].keys), np.stack([c[g].items for c in chosen]))
    return float(total(worth, columns)), elements


def _components(
    free: Sequence[str], terms: Sequence[Term], keys: Mapping[str, Sequence[str]]
) -> list[tuple[str, ...]]:
    """Groups that earn something together, or key each other, each set in the given order."""
    owner = {g: i for i, g in enumerate(free)}
    for together in (
        *(t.free for t in terms),
        *((g, *(k for k in keys[g] if k in owner)) for g in free),
    ):
        joined = {owner[g] for g in together}
        owner = {g: min(joined) if o in joined else o for g, o in owner.items()}
    return [tuple(g for g in free if owner[g] == n) for n in dict.fromkeys(owner.values())]


def _under_root(
    free: Sequence[str], terms: Sequence[Term], keys: Mapping[str, Sequence[str]], start: Elements
) -> tuple[float, dict[str, Element]]:
    """One group that all the others hang on, at every item of what it hangs on itself."""
    root, rest = free[0], free[1:]
    sizes = {k: t.scores.shape[t.batch.index(k)] for k in keys[root] for t in terms if k in t.batch}
    value, found = 0.0, []
    for at in product(*map(range, sizes.values())):
        where = dict(zip(sizes, at, strict=True))
        here = [t.inside(where) for t in terms]
        begin = dict(start)
        for key, item in where.items():
            begin = {g: e.at(key, item) for g, e in begin.items()}
        alone = sum(t.scores.sum(tuple(range(len(t.batch)))) for t in here if t.free == (root,))
        if isinstance(alone, int):  # it earns something only together with others
            size = next(t.scores.shape[len(t.batch) + t.free.index(root)] for t in here)
            alone = np.zeros((size, size))
        more = [t for t in here if t.free != (root,)]
        gain, elements = solve_root(
            root,
            rest,
            alone,
            lambda new, old, more=more: [t.at(root, new, old) for t in more],
            keys,
            begin,
        )
        value += gain
        found.append(elements)
    lead = tuple(sizes.values())
    return value, {
        g: Element(
            (*sizes, *e.keys), np.stack([f[g].items for f in found]).reshape(*lead, *e.items.shape)
        )
        for g, e in found[0].items()
    }


def _in_turns(
    free: Sequence[str], roots: Sequence[str], terms: Sequence[Term], keys: Mapping[str, Sequence[str]],
    start: Elements,
) -> tuple[float, dict[str, Element]]:  # fmt: skip
    """Several roots that meet in a term: one after the other with what hangs on it, the others
    held."""
    below = {r: tuple(g for g in free if g == r or r in keys[g]) for r in roots}
    best: tuple[float, dict[str, Element]] = (-np.inf, {})
    begins: list[dict[str, Element]] = [{}] + (
        [{g: start[g] for g in free}] if all(g in start for g in free) else []
    )
    for begin, first in product(begins, range(len(roots))):
        held, value, idle = dict(begin), -np.inf, 0
        order = (*roots[first:], *roots[:first])
        for turn in range(_TURNS * len(roots)):
            root = order[turn % len(roots)]
            known = [g for g in free if g not in below[root]]
            touching = [t for t in terms if set(t.free) & set(below[root])]
            usable = [t for t in touching if all(g in held for g in known if g in t.free)]
            if (
                not usable
            ):  # it earns something only together with groups that nothing is known of yet
                held |= {
                    g: _still(g, touching)
                    for g in known
                    if g not in held and any(g in t.free for t in touching)
                }
                usable = touching
            _, found = solve(below[root], [_held(t, known, held) for t in usable], keys, {})
            held |= found
            if any(g not in held for g in free):
                continue
            now = score(terms, held)
            idle = idle + 1 if now <= value + 1e-9 * abs(value) else 0
            value = max(now, value)
            if idle == len(roots):
                break
        if value > best[0]:
            best = value, held
    return best


def _still(group: str, terms: Sequence[Term]) -> Element:
    """The element that moves nothing, for a group that no undecided one keys."""
    term = next(t for t in terms if group in t.free)
    return Element((), np.arange(term.scores.shape[len(term.batch) + term.free.index(group)]))


def _held(term: Term, groups: Sequence[str], elements: Elements) -> Term:
    """A term with some of its groups arranged, those that are keyed before their keys."""
    for group in reversed(groups):
        if group in term.free:
            term = term.holding(group, elements[group])
    return term


def score(terms: Sequence[Term], elements: Elements) -> float:
    """What an arrangement earns."""
    return float(sum(_held(t, t.free, elements).scores.sum(dtype=np.float64) for t in terms))


def in_order(element: Element, keys: Sequence[str]) -> np.ndarray:
    """The items with the keys' axes in the order of the spec."""
    order = (*(element.keys.index(k) for k in keys), element.items.ndim - 1)
    return np.ascontiguousarray(element.items.transpose(order))
