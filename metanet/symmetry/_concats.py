"""Concatenations that meet: both are cut at the boundaries of either, and what goes by them
follows."""

from collections.abc import Sequence
from itertools import accumulate, chain, groupby

from ._bindings import Expr, Path, Segments, Stretch, Table
from ._cuts import Cuts, Equate
from ._leaves import Leaves

BLOCKS = 512  # where two partitions of an axis into more blocks than this meet, it is fixed


class Concats:
    """How two axes that consist of stretches become one.

    Args:
        leaves: what the axes are made of.
        cuts: on them.
        equate: for the stretches.
    """

    def __init__(self, leaves: Leaves, cuts: Cuts, equate: Equate) -> None:
        self.leaves = leaves
        self.cuts = cuts
        self.equate = equate

    def refine_both(self, left: Expr, right: Expr, reason: str) -> None:
        """Two products without common factors: blocks of the one meet blocks of the other in their
        intersections.

        Blocks of 4 and of 6::

            (3, 4)  |....|....|....|        no two blocks of either are cut alike: each is told apart,
            (2, 6)  |......|......|         ``3`` and ``2`` become concatenations of single items
                    |....|..|..|....|       and items are exchanged within ``4 | 2 | 2 | 4``
        """
        leaves = self.leaves
        blocks = leaves.sizes[left[0]] + leaves.sizes[right[0]]
        if blocks > BLOCKS or self._keeps_still(left) or self._keeps_still(right):
            leaves.fix(left + right, f"{reason}: its parts do not line up")
            return
        why = self.cuts.told_by((left[0], right[0]), reason)
        for first, *beside in (left, right):
            if first not in leaves.bound:
                self.cuts.cut_leaf(first, (1,) * leaves.sizes[first], beside, why)
        self.equate_stretches(left, right, reason)

    def _keeps_still(self, expr: Expr) -> bool:
        """Whether nothing moves along an axis."""
        leaves = self.leaves
        return all(leaf in leaves.reasons or leaf in leaves.wild for leaf in leaves.unbound(expr))

    def equate_stretches(self, left: Expr, right: Expr, reason: str) -> None:
        """Two sequences of stretches: cut both at all boundaries, then stretch by stretch."""
        leaves = self.leaves
        a, b = leaves.expand(left), leaves.expand(right)
        has_table = leaves.key(a[0]) is not None or leaves.key(b[0]) is not None
        if len(a) == 1 == len(b) and a != b and not has_table:
            self._equate_nodes(a[0], b[0], reason)
            return
        ours, theirs = leaves.stretches(left), leaves.stretches(right)
        if len(ours) == 1 == len(theirs):  # two tables: something has to be taken off
            ours = self.cuts.cut(left, leaves.size(a[1:]), reason)
        while ours and theirs:
            m, n = leaves.size(ours[0].expr), leaves.size(theirs[0].expr)
            if m > n:
                ours[:1] = self.cuts.cut(ours[0].expr, n, reason)
            elif n > m:
                theirs[:1] = self.cuts.cut(theirs[0].expr, m, reason)
            else:
                self.equate(ours.pop(0).expr, theirs.pop(0).expr, reason)

    def _equate_nodes(self, x: int, y: int, reason: str) -> None:
        """Two nodes of one size, of which one at least is a concatenation."""
        leaves = self.leaves
        for node, other in ((x, y), (y, x)):
            if node not in leaves.bound:
                self.cuts.cut_leaf(node, [leaves.size(part) for part in leaves.parts(other)])
        self._refine(x)
        self._refine(y)
        self._align(x, y)
        self._merge(x, y, reason)

    # ---------------------------------------------------------------- products as well

    def rekey(self, node: int, other: Expr) -> None:
        """A concatenation that is a product as well becomes that product, by whose factors its
        tables go then.

        Four items as ``(2, 2)``: a table ``n?(a / b / c / d)`` is ``p?(q?(a / b) / r?(c / d))``,
        where ``q`` and ``r`` are the second factor in the two segments of ``p``.
        """
        leaves = self.leaves
        if not leaves.is_concat(node):
            return
        self._refine(node)
        atoms = leaves.expand(other)
        stretches = leaves.stretches(atoms)
        sizes = [leaves.size(stretch.expr) for stretch in stretches]
        if len(atoms) == 1 or sizes != list(map(leaves.size, leaves.parts(node))):
            return
        paths = [stretch.path for stretch in stretches]
        keys = {key for key, _ in chain.from_iterable(paths)}
        if node in keys:
            return
        for root in leaves.tables.pop(node, ()):
            table = leaves.bound.get(root)
            if isinstance(table, Table):
                leaves.become(root, self._nested(paths, table.parts))
        leaves.become(node, atoms)

    def _nested(self, paths: Sequence[Path], entries: Sequence[Expr]) -> Expr:
        """A table of tables: each entry where the concatenations are in the segments of its
        path."""
        if not paths[0]:
            return entries[0]
        key = paths[0][0][0]
        inside: list[Expr] = []
        by_segment = groupby(zip(paths, entries, strict=True), key=lambda pair: pair[0][0])
        for _, group in by_segment:
            steps, inner = zip(*group, strict=True)
            inside.append(self._nested([path[1:] for path in steps], inner))
        return self.leaves.table(key, inside)

    # ---------------------------------------------------------------- boundaries

    def _refine(self, node: int) -> None:
        """Take segments that are concatenations themselves apart."""
        self._resegment(node, [self.leaves.stretches(part) for part in self.leaves.parts(node)])

    def _resegment(self, node: int, split: Sequence[Sequence[Stretch]]) -> None:
        """Each segment becomes several, with the entries of all tables."""
        leaves = self.leaves
        bound = leaves.bound[node]
        if all(len(stretches) == 1 for stretches in split):
            return
        assert isinstance(bound, Segments)
        parts = tuple(s.expr for stretches in split for s in stretches)
        leaves.bound[node] = Segments(parts, bound.why)
        for root in leaves.tables.get(node, ()):
            table = leaves.bound.get(root)
            if not isinstance(table, Table):
                continue
            # (a | b) becomes (c | d | b): k?(x / y) becomes k?(x where a is c / x where a is d / y)
            entries: list[Expr] = []
            for entry, stretches in zip(table.parts, split, strict=True):
                entries += [leaves.restrict(entry, stretch.path) for stretch in stretches]
            leaves.bound[root] = Table(node, tuple(entries))

    def _align(self, x: int, y: int) -> None:
        """Cut the segments of two concatenations of the same size at each other's boundaries."""
        while True:  # cutting through a product may make more boundaries than were asked for
            ours, theirs = self._ends(x), self._ends(y)
            if ours == theirs:
                return
            self._cut_segments(x, theirs - ours)
            self._cut_segments(y, ours - theirs)

    def _ends(self, node: int) -> set[int]:
        """Where the segments of a concatenation end."""
        return set(accumulate(map(self.leaves.size, self.leaves.parts(node))))

    def _cut_segments(self, node: int, boundaries: set[int]) -> None:
        """A concatenation gets boundaries, where it has none yet."""
        for at in sorted(boundaries):
            start = 0
            split: list[list[Stretch]] = []
            for part in self.leaves.parts(node):
                split.append(self.cuts.cut_within([Stretch(part)], at - start))
                start += self.leaves.size(part)
            self._resegment(node, split)
            self._refine(node)

    def _merge(self, x: int, y: int, reason: str) -> None:
        """Two concatenations with the same boundaries become one node, so that tables of either
        serve both."""
        leaves = self.leaves
        pairs = list(zip(leaves.parts(x), leaves.parts(y), strict=True))
        leaves.merge_roots(x, y)
        del leaves.bound[y]
        leaves.tables.setdefault(x, []).extend(leaves.tables.pop(y, ()))
        for one, other in pairs:
            self.equate(one, other, reason)
