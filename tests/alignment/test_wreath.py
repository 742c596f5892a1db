"""The solver of wreath products against trying out every element."""

from itertools import permutations, product

import numpy as np
import pytest

from metanet.alignment._wreath import Element, Term, score, solve


def every(shape):
    """All elements of one group: a permutation for every index of its keys."""
    *keys, n = shape
    for choice in product(permutations(range(n)), repeat=int(np.prod(keys, dtype=int))):
        yield np.array(choice).reshape(shape)


def brute(free, terms, keys, sizes):
    best = -np.inf
    for choice in product(*(list(every([*(sizes[k] for k in keys[g]), sizes[g]])) for g in free)):
        elements = {g: Element(tuple(keys[g]), e) for g, e in zip(free, choice, strict=True)}
        best = max(best, slow_score(terms, elements))
    return best


def slow_score(terms, elements):
    """The definition: entry by entry, new items in front, old items behind."""
    value = 0.0
    for t in terms:
        for at in np.ndindex(*t.scores.shape[: len(t.batch) + len(t.free)]):
            new = dict(zip((*t.batch, *t.free), at, strict=True))
            old = [
                int(elements[g].items[(*(new[k] for k in elements[g].keys), new[g])])
                for g in t.free
            ]
            value += t.scores[(*at, *old)]
    return value


SIZES = {"h": 3, "d": 3, "e": 2, "m": 2, "q": 2, "b": 2}
CASES = {
    "one": (["h"], {"h": []}, [([], ["h"])]),
    "dims per head": (["h", "d"], {"h": [], "d": ["h"]}, [([], ["h"]), ([], ["h", "d"])]),
    "two kinds of dims": (
        ["h", "d", "e"],
        {"h": [], "d": ["h"], "e": ["h"]},
        [([], ["h", "d"]), ([], ["h", "e"]), ([], ["h"])],
    ),
    "three deep": (
        ["e", "m", "d"],
        {"e": [], "m": ["e"], "d": ["e", "m"]},
        [([], ["e", "m"]), ([], ["e", "m", "d"]), ([], ["e"])],
    ),
    "per fixed item": (["d"], {"d": ["b"]}, [(["b"], ["d"])]),
    "one key free, one not": (
        ["e", "d"],
        {"e": [], "d": ["b", "e"]},
        [([], ["e"]), (["b"], ["e", "d"])],
    ),
    "apart": (["h", "d"], {"h": [], "d": []}, [([], ["h"]), ([], ["d"])]),
}
BILINEAR = {
    "grouped queries": (
        ["e", "q", "m"],
        {"e": [], "q": ["e"], "m": ["e"]},
        [([], ["e", "q"]), ([], ["e", "m"]), ([], ["e", "q", "m"]), ([], ["e"])],
    ),
    "meet, one per fixed item": (
        ["q", "m"],
        {"q": [], "m": ["b"]},
        [([], ["q"]), (["b"], ["m"]), (["b"], ["q", "m"])],
    ),
    "earn only together": (["q", "m"], {"q": [], "m": []}, [([], ["q", "m"])]),
}


def terms_of(case, seed):
    rng = np.random.default_rng(seed)
    free, keys, kinds = case
    terms = [
        Term(tuple(b), tuple(f), rng.normal(size=[SIZES[g] for g in (*b, *f, *f)]))
        for b, f in kinds
    ]  # fmt: skip
    return free, {g: tuple(keys[g]) for g in free}, terms


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_element_is_found(name, seed):
    free, keys, terms = terms_of(CASES[name], seed)
    value, found = solve(free, terms, keys, {})
    assert value == pytest.approx(brute(free, terms, keys, SIZES))
    assert slow_score(terms, found) == pytest.approx(value)
    assert score(terms, found) == pytest.approx(value)
    assert {g: set(e.keys) for g, e in found.items()} == {g: set(keys[g]) for g in free}


@pytest.mark.parametrize("name", BILINEAR)
def test_groups_that_meet_are_never_worse_than_before(name):
    reached = 0
    for seed in range(8):
        free, keys, terms = terms_of(BILINEAR[name], seed)
        rng = np.random.default_rng(seed)
        begin = {}
        for g in free:
            shape = [*(SIZES[k] for k in keys[g]), SIZES[g]]
            begin[g] = Element(
                keys[g], rng.permuted(np.broadcast_to(np.arange(SIZES[g]), shape), axis=-1)
            )
        value, found = solve(free, terms, keys, begin)
        assert slow_score(terms, found) == pytest.approx(value)
        assert value >= score(terms, begin) - 1e-12
        reached += value == pytest.approx(brute(free, terms, keys, SIZES))
    assert reached >= 6  # of 8: a local optimum is allowed, but rare at this size


def test_a_start_that_is_best_is_kept():
    """Where the turns would end in something worse, the arrangement they began with counts."""
    scores = np.full((2, 2, 2, 2), 0.0)
    for q, m in product(range(2), repeat=2):
        scores[q, m, 1 - q, 1 - m] = 1.0
    swap = np.array([1, 0])
    begin = {"q": Element((), swap), "m": Element((), swap)}
    value, found = solve(["q", "m"], [Term((), ("q", "m"), scores)], {"q": (), "m": ()}, begin)
    assert value == 4
    assert (found["q"].items == swap).all() and (found["m"].items == swap).all()
