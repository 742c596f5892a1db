"""Coordinate ascent: one group after the other is arranged in the best way, given all the
others."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ._moves import Keys, Move
from ._scores import Scores, earned
from ._stock import Stock
from ._terms import others_held
from ._wreath import Element, Term, in_order, score, solve, solve_root

_GAIN = {
    torch.float32: 1e-8,
    torch.float64: 1e-13,
}  # of the sizes of what is multiplied: less is rounding


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
        self, stock: Stock, moves: Sequence[Move], keys: Keys, elements: Mapping[str, Tensor],
        generator: torch.Generator, more: Sequence[Term] = (),
    ) -> None:  # fmt: skip
        self.more = more
        self.stock, self.moves, self.keys = stock, moves, keys
        self.elements = dict(elements)
        self.generator = generator
        self.solves = 0
        pieces = range(len(stock.pieces))
        sizes = [sum(stock.norm(side, n) ** 2 for n in pieces) for side in (0, 1)]
        self._least = _GAIN[stock.dtype] * (sizes[0] * sizes[1]) ** 0.5
        self.objective = [self.value()]

    def value(self) -> float:
        """The objective as it is, all in float64."""
        by_weights = sum(
            earned(self.stock, n, self.elements, self.keys) for n in range(len(self.stock.pieces))
        )
        return by_weights + score(
            self.more, {g: Element(self.keys[g], e.numpy()) for g, e in self.elements.items()}
        )

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
                if number in pending:
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
        known of some group at all times.

        Returns:
            The moves that did not see all their neighbours.
        """
        start, pending = self.elements, set()
        undecided = {g for m in self.moves for g in m.free}
        todo = torch.randperm(len(self.moves), generator=self.generator).tolist()
        while todo:
            known = {n: scores[n].known(undecided) for n in todo}
            number = max(todo, key=lambda n: known[n] if best_first else known[n] > 0)
            todo.remove(number)
            undecided -= {*self.moves[number].free}
            if known[number] < 1:
                pending.add(number)
            if known[number] > 0:
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
        reads: dict[str, set[int]] = {}
        for number, move in enumerate(self.moves):
            groups = {
                g
                for v in move.views
                for g in self.stock.pieces[v.piece].groups
                if g not in move.free
            }
            groups |= {g for n in move.twice_pieces for g in self.stock.pieces[n].groups}
            groups |= {
                g
                for t in self.more
                if {*t.free} & {*move.free}
                for g in t.free
                if g not in move.free
            }
            for group in groups:
                reads.setdefault(group, set()).add(number)
        return [set().union(*(reads.get(g, set()) for g in move.free)) for move in self.moves]

    def _step(self, scores: Scores, undecided: Collection[str] | None = None) -> bool:
        """Arranges the groups of a move anew; whether that gained anything.

        Args:
            undecided: leave out what they earn together with these, and whether the true objective
                rises.
        """
        self.solves += 1
        free = scores.move.free
        without = frozenset(undecided or ())
        now = {g: Element(self.keys[g], e.numpy()) for g, e in self.elements.items()}
        own = [t for t in self.more if {*t.free} & {*free} and not {*t.free, *t.batch} & without]
        more = [others_held(t, free, now, self.keys) for t in own]
        before = {g: now[g] for g in free}
        terms, twice = (
            [*scores.terms(self.elements, without), *more],
            scores.twice(self.elements, without),
        )
        if not (terms or twice or scores.large(without)):  # nothing can be told of them
            return False
        _, found = self._solve(scores, [*terms, *twice], before, without)
        after = {g: Element(self.keys[g], in_order(found[g], self.keys[g])) for g in free}
        changed = {
            g: torch.from_numpy(e.items)
            for g, e in after.items()
            if (e.items != before[g].items).any()
        }
        if not changed:
            return False
        gain = score(terms, after) - score(terms, before)
        if undecided is not None:
            if gain > self._least or twice or scores.large(without):
                self.elements = {**self.elements, **changed}
            return True
        if scores.move.twice_pieces or scores.large():
            gain += scores.true({**self.elements, **changed}) - scores.true(self.elements)
        if gain <= self._least:
            return False
        self.elements = {**self.elements, **changed}
        self.objective.append(self.objective[-1] + gain)
        return True

    def _solve(
        self,
        scores: Scores,
        terms: Sequence[Term],
        before: Mapping[str, Element],
        without: Collection[str],
    ) -> tuple[float, dict[str, Element]]:
        root, *rest = free = scores.move.free
        if not scores.large(without):
            return solve(free, terms, self.keys, before, scores.prices)
        of_pair = scores.of_pairs(self.elements, without)
        alone = sum(t.scores for t in terms if t.free == (root,)) + np.zeros(
            (self.stock.sizes[root],) * 2
        )
        more = [t for t in terms if t.free != (root,)]
        return solve_root(
            root, rest, alone, lambda new, old: [*(t.at(root, new, old) for t in more), *of_pair(new, old)],
            self.keys, before,
        )  # fmt: skip
