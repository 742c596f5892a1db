"""Concatenations that meet: both are cut at the boundaries of either, and what goes by them
follows."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate, groupby

from ._cuts import Cuts
from ._store import Concat, Expr, Piece, Table

BLOCKS = 512  # where two partitions of an axis into more blocks than this meet, it is fixed


class Concats(Cuts):
    """The store, and how two axes that consist of stretches become one."""

    @abstractmethod
    def equate(self, left: Expr, right: Expr, reason: str) -> None:
        """Both axes list the same items in the same order."""

    def refine_both(self, left: Sequence[int], right: Sequence[int], reason: str) -> None:
        """Two products without common factors: blocks of the one meet blocks of the other in their
        intersections.

        Blocks of 4 and of 6::

            (3, 4)  |....|....|....|        no two blocks of either are cut alike: each is told apart,
            (2, 6)  |......|......|         ``3`` and ``2`` become concatenations of single items
                    |....|..|..|....|       and items are exchanged within ``4 | 2 | 2 | 4``
        """
        first = left[0], right[0]
        still = any(
            all(r in self._reason or r in self._wild for r in self.unbound(tuple(e)))
            for e in (left, right)
        )
        if still or sum(self._size[f] for f in first) > BLOCKS:
            self.fix((*left, *right), f"{reason}: its parts do not line up")
            return
        why = self.told_by(first, reason)
        for side in (tuple(left), tuple(right)):
            if side[0] not in self._bound:
                self.cut_leaf(side[0], (1,) * self._size[side[0]], side[1:], why)
        self.equate_pieces(tuple(left), tuple(right), reason)

    def equate_pieces(self, left: Expr, right: Expr, reason: str) -> None:
        """Two sequences of stretches: cut both at all boundaries, then stretch by stretch."""
        a, b = self.expand(left), self.expand(right)
        tables = any(isinstance(self._bound.get(e[0]), Table) for e in (a, b))
        if len(a) == 1 and len(b) == 1 and a != b and not tables:
            x, y = a[0], b[0]
            for node, other in ((x, y), (y, x)):
                if node not in self._bound:
                    self.cut_leaf(node, [self.size(s) for s in self._bound[other].segments])
            self._refine(x)
            self._refine(y)
            self._align(x, y)
            self._merge_concats(x, y, reason)
            return
        i, j = self.pieces(left), self.pieces(right)
        if len(i) == 1 == len(j):  # two tables: something has to be taken off
            i = self.cut(left, self.size(a[1:]), reason)
        while i and j:
            m, n = self.size(i[0].expr), self.size(j[0].expr)
            if m > n:
                i[:1] = self.cut(i[0].expr, n, reason)
            elif n > m:
                j[:1] = self.cut(j[0].expr, m, reason)
            else:
                self.equate(i.pop(0).expr, j.pop(0).expr, reason)

    def rekey(self, node: int, other: Expr) -> None:
        """A concatenation that is a product as well becomes that product, by whose factors its
        tables go then.

        Four items as ``(2, 2)``: a table ``n?(a / b / c / d)`` is ``p?(q?(a / b) / r?(c / d))``,
        where ``q`` and ``r`` are the second factor in the two segments of ``p``.
        """
        if not isinstance(self._bound.get(node), Concat):
            return
        self._refine(node)
        atoms, segments = self.expand(other), self._bound[node].segments
        pieces = self.pieces(atoms)
        if len(atoms) == 1 or list(map(self.size, segments)) != [self.size(p.expr) for p in pieces]:
            return
        paths = [p.path for p in pieces]
        if any(key == node for path in paths for key, _ in path):
            return
        for t in self._tables.pop(node, ()):
            table = self._bound.get(t)
            if isinstance(table, Table):
                self.become(t, self._nested(paths, table.entries))
        self.become(node, atoms)

    def _nested(
        self, paths: Sequence[tuple[tuple[int, int], ...]], entries: Sequence[Expr]
    ) -> Expr:
        """A table of tables: each entry where the concatenations are in the segments of its
        path."""
        if not paths[0]:
            return entries[0]
        key = paths[0][0][0]
        inside = []
        for _, group in groupby(zip(paths, entries, strict=True), key=lambda pair: pair[0][0]):
            steps, own = zip(*group, strict=True)
            inside.append(self._nested([path[1:] for path in steps], own))
        return self.table(key, inside)

    def _refine(self, node: int) -> None:
        """Take segments that are concatenations themselves apart."""
        self._resegment(node, [self.pieces(s) for s in self._bound[node].segments])

    def _resegment(self, node: int, split: Sequence[Sequence[Piece]]) -> None:
        """Each segment becomes several, with the entries of all tables."""
        if all(len(p) == 1 for p in split):
            return
        bound = self._bound[node]
        self._bound[node] = Concat(tuple(p.expr for ps in split for p in ps), bound.why)
        for t in self._tables.get(node, ()):
            table = self._bound.get(t)
            if isinstance(table, Table):
                entries = [
                    self.restrict(e, p.path)
                    for e, ps in zip(table.entries, split, strict=True)
                    for p in ps
                ]
                self._bound[t] = Table(node, tuple(entries))

    def _align(self, x: int, y: int) -> None:
        """Cut the segments of two concatenations of the same size at each other's boundaries."""
        while True:  # cutting through a product may make more boundaries than were asked for
            ends = [set(accumulate(self.size(s) for s in self._bound[n].segments)) for n in (x, y)]
            if ends[0] == ends[1]:
                return
            for node, missing in ((x, ends[1] - ends[0]), (y, ends[0] - ends[1])):
                for at in sorted(missing):
                    self._cut_segment(node, at)
                    self._refine(node)

    def _cut_segment(self, node: int, at: int) -> None:
        """A concatenation gets a boundary after ``at`` items, if it has none there."""
        start, split = 0, []
        for segment in self._bound[node].segments:
            size = self.size(segment)
            split.append(
                self.cut(segment, at - start) if start < at < start + size else [Piece(segment)]
            )
            start += size
        self._resegment(node, split)

    def _merge_concats(self, x: int, y: int, reason: str) -> None:
        """Two concatenations with the same boundaries become one node, so that tables of either
        serve both."""
        left, right = self._bound[x].segments, self._bound[y].segments
        self._parent[y] = x
        del self._bound[y]
        self._tables.setdefault(x, []).extend(self._tables.pop(y, ()))
        for one, other in zip(left, right, strict=True):
            self.equate(one, other, reason)
