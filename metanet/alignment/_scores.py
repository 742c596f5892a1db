"""What the groups of a move earn, kept up to date as other groups move.

The scores of a move are sums of products ``reference @ moving.T`` over pieces. Where a neighbour
has moved, only the columns of its moved items change, so that an update costs the share of the
neighbour that moved: little, once the ascent comes to rest.
"""

from collections.abc import Callable, Collection, Mapping
from math import prod

import torch
from torch import Tensor

from ._assignment import Prices
from ._moves import Keys, Move, View, arrange, run_index, unfold
from ._stock import Stock
from ._wreath import Term

# entries of the largest scores of a wreath product that are made as a whole, not pair by pair
_WHOLE = 1 << 28

_STRETCH = 4  # entries side by side from which on moving them is as fast as moving lines

_Sums = dict[tuple[tuple[str, ...], tuple[str, ...]], Tensor]


class Scores:
    """The scores of one move."""

    def __init__(self, move: Move, stock: Stock, keys: Keys) -> None:
        self.move, self.stock, self.keys = move, stock, keys
        self.prices = Prices()
        self._large = tuple(v for v in move.views if self._is_large(v))
        self._views = tuple(v for v in move.views if v not in self._large)
        self._sums: _Sums = {}
        self._room = True  # to keep the sums
        self._reserved = 0
        self._seen: dict[View, Tensor] = {}
        # how every piece changes
        self._known = all(v.run is not None or not v.arranged for v in self._views)

    def _is_large(self, view: View) -> bool:
        """Whether the scores of a view are too large as a whole."""
        if len(self.move.free) == 1 or view.batch:
            return False
        return prod(map(self._size, view.free)) ** 2 > _WHOLE

    def large(self, without: Collection[str] = ()) -> tuple[View, ...]:
        """The views whose terms are only given pair by pair."""
        return tuple(v for v in self._large if not self._touches(v, without))

    def known(self, undecided: Collection[str]) -> float:
        """The share of the entries of all pieces that have no axis of undecided groups, the move's
        own not counted.

        0 while some of the move's groups have no such piece: they would be arranged by nothing.
        """
        others = {*undecided} - {*self.move.free}
        views = {v.piece: v for v in (*self._views, *self._large, *self.move.twice)}
        pieces = self.stock.pieces
        decided = {n: v for n, v in views.items() if others.isdisjoint(pieces[n].groups)}
        groups = {g for v in views.values() for g in v.free}
        decided_groups = {g for v in decided.values() for g in v.free}
        whole = sum(pieces[n].size for n in views)
        if decided_groups < groups or not whole:
            return 0.0
        return sum(pieces[n].size for n in decided) / whole

    def terms(self, elements: Mapping[str, Tensor], without: Collection[str] = ()) -> list[Term]:
        """What the free groups earn in pieces where each of them has one axis.

        Args:
            without: leave out pieces with axes of these groups; only before they have been in.
        """
        if not self._known:
            self._sums.clear()
            self._seen.clear()
        for view in self._views:
            if not self._touches(view, without):
                self._update(view, elements)
        return self._as_terms(self._sums)

    def settle(self) -> None:
        """After a step: lets go of what there is no room for."""
        size = sum(s.nbytes for s in self._sums.values())
        if self._room and size > self._reserved:
            self._room = self.stock.reserve(size - self._reserved)
            self._reserved = size
        if not self._room:
            self._sums.clear()
            self._seen.clear()

    def twice(self, elements: Mapping[str, Tensor], without: Collection[str] = ()) -> list[Term]:
        """What they earn where some have several axes, were all but one of these to stay."""
        sums: _Sums = {}
        for view in self.move.twice:
            if self._touches(view, without):
                continue
            self._add(sums, view, self.stock.reference(view.piece), self._arranged(view, elements))
        return self._as_terms(sums)

    def of_pairs(
        self, elements: Mapping[str, Tensor], without: Collection[str] = ()
    ) -> Callable[[int, int], list[Term]]:
        """The terms that are too large as a whole: a function that gives them for a pair of the
        root's items, the new one and the old one."""
        items = self._size(self.move.root)
        sides = []
        for view in self.large(without):
            a = unfold(self.stock.reference(view.piece), view)[0]
            b = unfold(self._arranged(view, elements), view)[0]
            a, b = (side.reshape(items, -1, side.shape[-1]) for side in (a, b))
            sides.append((view.free[1:], a, b))

        def terms(new: int, old: int) -> list[Term]:
            """For new item ``new`` and old item ``old`` of the root."""
            of_pair = []
            for free, a, b in sides:
                sizes = [self._size(group) for group in free]
                scores = (a[new] @ b[old].T).reshape(*sizes, *sizes)
                of_pair.append(Term((), free, scores.cpu().numpy()))
            return of_pair

        return terms

    def true(self, elements: Mapping[str, Tensor]) -> float:
        """What the pieces outside of :meth:`terms` earn."""
        pieces = (*self.move.twice_pieces, *(v.piece for v in self._large))
        return sum(earned(self.stock, n, elements, self.keys) for n in pieces)

    def _touches(self, view: View, groups: Collection[str]) -> bool:
        if not groups:
            return False
        return any(g in groups for g in self.stock.pieces[view.piece].groups)

    def _size(self, group: str) -> int:
        return self.stock.sizes[group]

    def _arranged(self, view: View, elements: Mapping[str, Tensor]) -> Tensor:
        groups = [a.group for a in self.stock.pieces[view.piece].atoms]
        return arrange(self.stock.moving(view.piece), groups, view.arranged, elements, self.keys)

    def _update(self, view: View, elements: Mapping[str, Tensor]) -> None:
        """Brings the sums up to date where neighbours of a view have moved.

        ::

            before  [0, 1, 2, 3]    changed lines 1, 2:  sums += reference[1, 2] @ moving[2, 1].T
            now     [0, 2, 1, 3]                                - reference[1, 2] @ moving[1, 2].T
        """
        if view.run is None:
            self._add_once(view, elements)
            return
        now = run_index(self.stock.pieces[view.piece], view, elements, self.keys)
        before = self._seen.get(view)
        changed = torch.arange(len(now)) if before is None else (now != before).nonzero().flatten()
        if len(changed) == 0:
            return
        reference, moving, axis = self._lines(view)
        if before is None and torch.equal(now, changed):  # nothing has moved yet
            part = moving
        else:
            part = moving.index_select(axis, now[changed].to(moving.device))
        if before is not None:
            part -= moving.index_select(axis, before[changed].to(moving.device))
        if len(changed) < len(now):
            reference = reference.index_select(axis, changed.to(reference.device))
        self._add_lines(view, reference, part, axis)
        self._seen[view] = now

    def _add_once(self, view: View, elements: Mapping[str, Tensor]) -> None:
        """A view without lines is added as a whole."""
        if view in self._seen:
            return
        reference = self.stock.reference(view.piece)
        self._add(self._sums, view, reference, self._arranged(view, elements))
        self._seen[view] = torch.empty(0)

    def _add_lines(self, view: View, reference: Tensor, moving: Tensor, axis: int) -> None:
        """What some lines of both sides earn.

        ::

            axis 1   (free, lines, fixed)        one product over lines and fixed entries
            axis 0   (lines, rest, batch, free)  one product for each item of the batch
        """
        if axis:
            total = self._sum(self._sums, view, moving, 1, len(moving))
            total[0].addmm_(reference.flatten(1), moving.flatten(1).T)
        elif moving.shape[2] == 1:
            a, b = (side.reshape(-1, side.shape[-1]) for side in (reference, moving))
            total = self._sum(self._sums, view, moving, 1, a.shape[1])
            total[0].addmm_(a.T, b)
        else:
            a, b = (side.flatten(0, 1).transpose(0, 1) for side in (reference, moving))
            total = self._sum(self._sums, view, moving, len(a), a.shape[2])
            total.baddbmm_(a.mT, b)

    def _lines(self, view: View) -> tuple[Tensor, Tensor, int]:
        """Both sides of a piece so that the run is one axis, and moving along it is cheap; the
        number of that axis."""
        first, last = view.stretch
        if view.direct:
            a, b = (
                x.reshape(prod(x.shape[:first]), prod(x.shape[first:last]), -1)
                for x in (self.stock.reference(view.piece), self.stock.moving(view.piece))
            )
            if a.shape[2] >= _STRETCH:
                return a, b, 1
        return self.stock.lines(0, view), self.stock.lines(1, view), 0

    def _add(self, sums: _Sums, view: View, reference: Tensor, moving: Tensor) -> None:
        a, b = unfold(reference, view), unfold(moving, view)
        total = self._sum(sums, view, a, *a.shape[:2])
        if len(a) == 1:
            total[0].addmm_(a[0], b[0].T)
        else:
            total.baddbmm_(a, b.mT)

    @staticmethod
    def _sum(sums: _Sums, view: View, like: Tensor, batch: int, free: int) -> Tensor:
        key = (view.batch, view.free)
        if key not in sums:
            sums[key] = like.new_zeros(batch, free, free)
        return sums[key]

    def _as_terms(self, sums: _Sums) -> list[Term]:
        terms = []
        for (batch, free), total in sums.items():
            sizes = [self._size(group) for group in (*batch, *free, *free)]
            terms.append(Term(batch, free, total.reshape(sizes).cpu().numpy()))
        return terms


def earned(stock: Stock, piece: int, elements: Mapping[str, Tensor], keys: Keys) -> float:
    """The inner product of a piece of the reference with that of the checkpoint as it is arranged,
    in float64."""
    groups = [atom.group for atom in stock.pieces[piece].atoms]
    axes = list(stock.pieces[piece].named)
    moving = arrange(stock.moving(piece), groups, axes, elements, keys)
    return float((stock.reference(piece) * moving).sum(dtype=torch.float64))
