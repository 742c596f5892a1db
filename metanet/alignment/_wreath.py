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

    def place(self, group: str) -> int:
        """The axis of a free group's new items.

        That of its old items is as many axes further as there are free groups.
        """
        return len(self.batch) + self.free.index(group)

    def size(self, group: str) -> int:
        """How many items one of the groups has."""
        return self.scores.shape[(*self.batch, *self.free).index(group)]

    def at(self, group: str, new: int, old: int) -> "Term":
        """Where the new item ``new`` of a free group is its old item ``old``."""
        place = self.place(group)
        index: list[slice | int] = [slice(None)] * self.scores.ndim
        index[place] = new
        index[place + len(self.free)] = old
        return Term(self.batch, _without(self.free, group), self.scores[tuple(index)])

    def inside(self, at: Mapping[str, int]) -> "Term":
        """At one item of some of the batch groups."""
        index = tuple(at.get(g, slice(None)) for g in self.batch)
        return Term(tuple(g for g in self.batch if g not in at), self.free, self.scores[index])

    def holding(self, group: str, element: "Element", keep: bool = False) -> "Term":
        """With one of the free groups, which keys no free one, arranged by ``element``.

        Args:
            keep: the group does key free ones, and goes to the batch.
        """
        place = self.place(group)
        old_items = place + len(self.free)
        labels = (*self.batch, *self.free)
        axes = [labels.index(name) for name in (*element.keys, group)]
        picks = _spread(element.items, axes, self.scores.ndim)
        scores = np.take_along_axis(self.scores, picks, old_items).squeeze(old_items)
        others = _without(self.free, group)
        if keep:
            return Term((*self.batch, group), others, np.moveaxis(scores, place, len(self.batch)))
        return Term(self.batch, others, scores.sum(place))


def _without(groups: tuple[str, ...], group: str) -> tuple[str, ...]:
    return tuple(g for g in groups if g != group)


def _spread(array: np.ndarray, axes: Sequence[int], ndim: int) -> np.ndarray:
    """An array with its axes at some places of ``ndim``, of size 1 along all others.

    >>> _spread(np.zeros((2, 3)), [2, 0], 4).shape
    (3, 1, 2, 1)
    """
    shape = [1] * ndim
    for axis, size in zip(axes, array.shape, strict=True):
        shape[axis] = size
    order = sorted(range(len(axes)), key=axes.__getitem__)
    return array.transpose(order).reshape(shape)


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
        return Element(_without(self.keys, key), self.items.take(item, place))

    def inside(self, at: Mapping[str, int]) -> "Element":
        """At one item of each of some keys."""
        element = self
        for key, item in at.items():
            element = element.at(key, item)
        return element


Elements = Mapping[str, Element]


class Source(Protocol):
    """Gives the terms of the groups under a root, for a pair of its items."""

    def __call__(self, new: int, old: int) -> Sequence[Term]: ...


def solve(
    free: Sequence[str],
    terms: Sequence[Term],
    keys: Mapping[str, Sequence[str]],
    start: Elements,
    prices: Prices | None = None,
) -> tuple[float, dict[str, Element]]:
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
        of_part = [t for t in terms if t.free and t.free[0] in part]
        roots = [g for g in part if set(keys[g]).isdisjoint(part)]
        if len(roots) > 1:
            gain, arranged = _in_turns(part, roots, of_part, keys, start)
        else:
            gain, arranged = _under_root(part, of_part, keys, start)
        value += gain
        elements |= arranged
    return value, elements


def solve_root(
    root: str,
    below: Sequence[str],
    scores: np.ndarray,
    source: Source,
    keys: Mapping[str, Sequence[str]],
    start: Elements,
) -> tuple[float, dict[str, Element]]:
    """The same for one group and others that all hang on it.

    ::

        heads 2 x 2, dims below   worth[new, old] = scores[new, old]
                                                  + the best of dims of head new on dims of head old
        assign(worth)             heads, and with each pair the dims that made it worth so much

    Args:
        root: the group.
        below: those that hang on it, keys before what they key.
        scores: what the root earns by itself, ``(size, size)``.
        source: what the others earn for a pair of its items.
    """
    if not below:
        columns = assign(scores)
        return float(total(scores, columns)), {root: Element((), columns)}
    worth = scores.astype(np.float64)
    inner: dict[tuple[int, int], dict[str, Element]] = {}
    for new, old in product(range(len(scores)), repeat=2):
        begin = {}
        if root in start and start[root].items[new] == old:
            begin = {g: start[g].at(root, new) for g in below if g in start}
        value, inner[new, old] = solve(below, source(new, old), keys, begin)
        worth[new, old] += value
    columns = assign(worth)
    pairs = [inner[new, int(old)] for new, old in enumerate(columns)]
    elements = {root: Element((), columns)}
    for group in below:
        items = np.stack([pair[group].items for pair in pairs])
        elements[group] = Element((root, *pairs[0][group].keys), items)
    return float(total(worth, columns)), elements


def _components(
    free: Sequence[str], terms: Sequence[Term], keys: Mapping[str, Sequence[str]]
) -> list[tuple[str, ...]]:
    """Groups that earn something together, or key each other, each set in the given order.

    >>> together = Term((), ("a", "c"), np.zeros((2, 2, 2, 2)))
    >>> _components(["a", "b", "c"], [together], {"a": (), "b": (), "c": ()})
    [('a', 'c'), ('b',)]
    """
    number = {g: n for n, g in enumerate(free)}
    links = [t.free for t in terms]
    links += [(g, *(key for key in keys[g] if key in number)) for g in free]
    for link in links:
        joined = {number[g] for g in link}
        first = min(joined, default=0)
        number = {g: first if n in joined else n for g, n in number.items()}
    return [tuple(g for g in free if number[g] == n) for n in dict.fromkeys(number.values())]


def _under_root(
    free: Sequence[str], terms: Sequence[Term], keys: Mapping[str, Sequence[str]], start: Elements
) -> tuple[float, dict[str, Element]]:
    """One group that all the others hang on, at every item of what it hangs on itself."""
    root, *below = free
    sizes = {key: t.size(key) for key in keys[root] for t in terms if key in t.batch}
    value = 0.0
    arranged: list[dict[str, Element]] = []
    for items in product(*map(range, sizes.values())):
        where = dict(zip(sizes, items, strict=True))
        inside = [t.inside(where) for t in terms]
        begin = {g: element.inside(where) for g, element in start.items()}
        source = _at_pairs(root, [t for t in inside if t.free != (root,)])
        gain, elements = solve_root(root, below, _alone(root, inside), source, keys, begin)
        value += gain
        arranged.append(elements)
    lead = tuple(sizes.values())
    stacked = {}
    for group, first in arranged[0].items():
        each_item = np.stack([elements[group].items for elements in arranged])
        whole = each_item.reshape(*lead, *first.items.shape)
        stacked[group] = Element((*sizes, *first.keys), whole)
    return value, stacked


def _alone(root: str, terms: Sequence[Term]) -> np.ndarray:
    """What a root earns by itself, ``(size, size)``."""
    alone = [t.scores.sum(tuple(range(len(t.batch)))) for t in terms if t.free == (root,)]
    if alone:
        return reduce(np.add, alone)
    size = terms[0].size(root)  # it earns something only together with others
    return np.zeros((size, size))


def _at_pairs(root: str, terms: Sequence[Term]) -> Source:
    """What the groups below a root earn, by pairs of its items."""
    return lambda new, old: [t.at(root, new, old) for t in terms]


def _in_turns(
    free: Sequence[str],
    roots: Sequence[str],
    terms: Sequence[Term],
    keys: Mapping[str, Sequence[str]],
    start: Elements,
) -> tuple[float, dict[str, Element]]:
    """Several roots that meet in a term: the best of several starts."""
    families = [tuple(g for g in free if g == root or root in keys[g]) for root in roots]
    begins: list[dict[str, Element]] = [{}]
    if all(g in start for g in free):
        begins.append({g: start[g] for g in free})
    best_value = -np.inf
    best: dict[str, Element] = {}
    for begin, first in product(begins, range(len(roots))):
        order = [*families[first:], *families[:first]]
        value, elements = _until_idle(free, order, terms, keys, begin)
        if value > best_value:
            best_value, best = value, elements
    return best_value, best


def _until_idle(
    free: Sequence[str],
    families: Sequence[Sequence[str]],
    terms: Sequence[Term],
    keys: Mapping[str, Sequence[str]],
    begin: Elements,
) -> tuple[float, dict[str, Element]]:
    """One family after the other, the others held, until a whole round gains nothing.

    ::

        turn    1        2        3        4
        solved  queries  values   queries  values
        value   6.8      7.1      7.4      7.4     and 7.4 after the fifth: both are idle
    """
    elements = dict(begin)
    value = -np.inf
    idle = 0
    for turn in range(_TURNS * len(families)):
        family = families[turn % len(families)]
        elements |= _turn(free, family, terms, keys, elements)
        if any(g not in elements for g in free):
            continue
        now = score(terms, elements)
        idle = idle + 1 if now <= value + 1e-9 * abs(value) else 0
        value = max(now, value)
        if idle == len(families):
            break
    return value, elements


def _turn(
    free: Sequence[str],
    family: Sequence[str],
    terms: Sequence[Term],
    keys: Mapping[str, Sequence[str]],
    elements: Elements,
) -> dict[str, Element]:
    """A family arranged, given the others; those of which nothing is known yet as they stand, if
    the family earns nothing without them."""
    held = dict(elements)
    others = [g for g in free if g not in family]
    undecided = [g for g in others if g not in held]
    touching = [t for t in terms if not set(t.free).isdisjoint(family)]
    usable = [t for t in touching if set(t.free).isdisjoint(undecided)]
    if not usable:
        met = {g for t in touching for g in t.free}
        held |= {g: _still(g, touching) for g in undecided if g in met}
        usable = touching
    _, arranged = solve(family, [_held(t, others, held) for t in usable], keys, {})
    return held | arranged


def _still(group: str, terms: Sequence[Term]) -> Element:
    """The element that moves nothing, for a group that no undecided one keys."""
    term = next(t for t in terms if group in t.free)
    return Element((), np.arange(term.size(group)))


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
