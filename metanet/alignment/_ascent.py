"""Coordinate ascent: one group after the other is arranged in the best way, given all the
others."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ._moves import Keys, Move
from ._scores import Scores, earned
from ._stock import Stock
from ._terms import others_held
from ._wreath import Element, Term, in_order, score, solve, solve_root

# of the sizes of what is multiplied: less is rounding
_GAIN = {torch.float32: 1e-8, torch.float64: 1e-13}


class Ascent:
    """Steps through the groups until no step gains anything; only those are solved whose neighbours
    have moved.

    Args:
        more: what groups earn besides the inner products of weights.

    Attributes:
        elements: the arrangement of every group, ``(*sizes of its keys, size)``.
        objective: the sum of inner products at the start, then after every step that changed
            something.
        solves: steps taken.
    """

    def __init__(
        self,
        stock: Stock,
        moves: Sequence[Move],
        keys: Keys,
        elements: Mapping[str, Tensor],
        generator: torch.Generator,
        more: Sequence[Term] = (),
    ) -> None:
        self.stock = stock
        self.moves = moves
        self.keys = keys
        self.elements = dict(elements)
        self.generator = generator
        self.more = more
        self.solves = 0
        pieces = range(len(stock.pieces))
        sizes = [sum(stock.norm(side, n) ** 2 for n in pieces) for side in (0, 1)]
        self._least = _GAIN[stock.dtype] * (sizes[0] * sizes[1]) ** 0.5
        self.objective = [self.value()]

    def value(self) -> float:
        """The objective as it is, all in float64."""
        pieces = range(len(self.stock.pieces))
        by_weights = sum(earned(self.stock, n, self.elements, self.keys) for n in pieces)
        return by_weights + score(self.more, self._arrangement())

    def _arrangement(self) -> dict[str, Element]:
        return {g: Element(self.keys[g], e.numpy()) for g, e in self.elements.items()}

    def run(self, max_sweeps: int, fresh: bool = False, best_first: bool = True) -> None:
        """In a random order, again and again.

        Args:
            fresh: begin with a pass that owes nothing to how groups stand, and keep what it finds
                if that is better.
            best_first: in that pass, the group that most is known of comes first; else any that
                something is known of.
        """
        scores = [Scores(m, self.stock, self.keys) for m in self.moves]
        touched = self._neighbours()
        pending = self._begin(scores, best_first) if fresh else set(range(len(self.moves)))
        for _ in range(max_sweeps):
            for number in torch.randperm(len(self.moves), generator=self.generator).tolist():
                if number not in pending:
                    continue
                pending.discard(number)
                if self._step(scores[number]):
                    pending |= touched[number]
                scores[number].settle()
            if not pending:
                break

    def _begin(self, scores: Sequence[Scores], best_first: bool) -> set[int]:
        """Arranges every group once, each by what it has in common with groups that are decided
        already.

        How the others happen to stand says nothing: to fit a group to that binds all to a chance
        order, which later steps can't undo. The ends of the network are fixed, so that something is
        known of some group at all times::

            inputs - a - b - c - outputs     c first: of its pieces b x c and c x outputs one is decided
                                             a next, by inputs x a; then b, by a x b and b x c

        Returns:
            The moves that did not see all their neighbours.
        """
        start = self.elements
        pending: set[int] = set()
        undecided = {group for move in self.moves for group in move.free}
        todo = torch.randperm(len(self.moves), generator=self.generator).tolist()
        while todo:
            shares = {n: scores[n].known(undecided) for n in todo}
            ranks = shares if best_first else {n: float(shares[n] > 0) for n in todo}
            number = max(todo, key=ranks.__getitem__)
            todo.remove(number)
            undecided -= {*self.moves[number].free}
            if shares[number] < 1:
                pending.add(number)
            if shares[number] > 0:
                self._step(scores[number], undecided)
            scores[number].settle()
        value = self.value()
        if value <= self.objective[0]:
            self.elements = start
            return set(range(len(self.moves)))
        self.objective.append(value)
        return pending

    def _neighbours(self) -> list[set[int]]:
        """For every move those whose scores change with it."""
        readers: dict[str, set[int]] = defaultdict(set)
        for number, move in enumerate(self.moves):
            for group in self._read_by(move):
                readers[group].add(number)
        return [set().union(*(readers[g] for g in move.free)) for move in self.moves]

    def _read_by(self, move: Move) -> set[str]:
        """The groups on whose arrangement the scores of a move depend; its own where a piece has
        one of them several times."""
        groups: set[str] = set()
        for view in move.views:
            groups.update(self.stock.pieces[view.piece].groups)
        for term in self.more:
            if not set(term.free).isdisjoint(move.free):
                groups.update(term.free)
        groups.difference_update(move.free)
        for number in move.twice_pieces:
            groups.update(self.stock.pieces[number].groups)
        return groups

    def _step(self, scores: Scores, undecided: Collection[str] | None = None) -> bool:
        """Arranges the groups of a move anew; whether that gained anything.

        Args:
            undecided: leave out what they earn together with these, and whether the true objective
                rises.
        """
        self.solves += 1
        free = scores.move.free
        without = frozenset(undecided or ())
        now = self._arrangement()
        before = {g: now[g] for g in free}
        terms = scores.terms(self.elements, without) + self._extra_terms(free, now, without)
        twice = scores.twice(self.elements, without)
        large = scores.large(without)
        if not (terms or twice or large):  # nothing can be told of them
            return False
        _, arranged = self._solve(scores, [*terms, *twice], before, without)
        after = {g: Element(self.keys[g], in_order(arranged[g], self.keys[g])) for g in free}
        moved = [g for g in free if (after[g].items != before[g].items).any()]
        if not moved:
            return False
        elements = self.elements | {g: torch.from_numpy(after[g].items) for g in moved}
        gain = score(terms, after) - score(terms, before)
        if undecided is not None:
            if gain > self._least or twice or large:
                self.elements = elements
            return True
        if scores.move.twice_pieces or scores.large():
            gain += scores.true(elements) - scores.true(self.elements)
        if gain <= self._least:
            return False
        self.elements = elements
        self.objective.append(self.objective[-1] + gain)
        return True

    def _extra_terms(
        self, free: Sequence[str], now: Mapping[str, Element], without: Collection[str]
    ) -> list[Term]:
        """What a family earns besides the inner products of weights, all other groups held."""
        terms = []
        for term in self.more:
            touches = not set(term.free).isdisjoint(free)
            if touches and {*term.free, *term.batch}.isdisjoint(without):
                terms.append(others_held(term, free, now, self.keys))
        return terms

    def _solve(
        self,
        scores: Scores,
        terms: Sequence[Term],
        before: Mapping[str, Element],
        without: Collection[str],
    ) -> tuple[float, dict[str, Element]]:
        free = scores.move.free
        if not scores.large(without):
            return solve(free, terms, self.keys, before, scores.prices)
        root, *below = free
        size = self.stock.sizes[root]
        alone = np.zeros((size, size)) + sum(t.scores for t in terms if t.free == (root,))
        together = [t for t in terms if t.free != (root,)]
        of_pair = scores.of_pairs(self.elements, without)

        def source(new: int, old: int) -> list[Term]:
            return [*(t.at(root, new, old) for t in together), *of_pair(new, old)]

        return solve_root(root, below, alone, source, self.keys, before)
