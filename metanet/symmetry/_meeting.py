"""Two products that list the same items meet: their first factors are reconciled.

What the first factors are decides, nine cases in all:

======================================  ==========================================================
two tables by the same key              their entries meet
a table whose key follows it            the key meets its counterpart first
a table and a concatenation             both are cut at all boundaries of either
a table and an open leaf of its size    the leaf is the table
a table and anything else of its size   the table's entries are all the same
a table and a size that divides         the table is split
a concatenation                         meets as many factors as make up its size
two leaves of one size                  are one leaf
two leaves whose sizes divide           are split at the greatest common divisor
======================================  ==========================================================

Where nothing divides, ``(3, 4)`` against ``(2, 6)``, both are cut at all boundaries of either up to
the next common one: ``4 | 2 | 2 | 4``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

from ._bindings import Expr
from ._concats import Concats
from ._cuts import Cuts, Equate
from ._leaves import Leaves


@dataclass(slots=True)
class Side:
    """What is left of one of two products.

    Attributes:
        first: the factor that meets.
        behind: the factors that follow, the last one first.
    """

    first: int
    behind: list[int]

    def put_back(self, factors: Iterable[int]) -> None:
        """Have these in front of what follows."""
        self.behind.extend(reversed(tuple(factors)))

    def whole(self) -> Expr:
        """All factors, first one first."""
        return (self.first, *reversed(self.behind))


class Meeting:
    """Reconciles the first factors of two products.

    Args:
        leaves: what the products are made of.
        cuts, concats: on them.
        equate: for what follows from a meeting.
    """

    def __init__(self, leaves: Leaves, cuts: Cuts, concats: Concats, equate: Equate) -> None:
        self.leaves = leaves
        self.cuts = cuts
        self.concats = concats
        self.equate = equate

    def meet(self, x: Side, y: Side, reason: str) -> None:
        """Reconcile the first factors, which differ; whatever is left of them is put back."""
        leaves = self.leaves
        if leaves.key(x.first) is not None or leaves.key(y.first) is not None:
            self._with_table(x, y, reason)
        elif leaves.is_concat(x.first):
            y.put_back([y.first])
            self._concat_meets(x, y, reason)
        elif leaves.is_concat(y.first):
            x.put_back([x.first])
            self._concat_meets(y, x, reason)
        elif leaves.sizes[x.first] == leaves.sizes[y.first]:
            leaves.unite(x.first, y.first)
        else:
            self._divide(x, y, reason)

    def _divide(self, x: Side, y: Side, reason: str) -> None:
        """Leaves of different sizes: ``12`` against ``(8, ...)`` is ``(4, 3)`` against
        ``(4, 2, ...)``."""
        common = gcd(self.leaves.sizes[x.first], self.leaves.sizes[y.first])
        if common == 1:
            self._line_up(x, y, reason)
            return
        x.put_back(self.cuts.split(x.first, common, reason))
        y.put_back(self.cuts.split(y.first, common, reason))

    # ---------------------------------------------------------------- tables

    def _with_table(self, x: Side, y: Side, reason: str) -> None:
        """One of the two is a table at least."""
        leaves = self.leaves
        same_size = leaves.sizes[x.first] == leaves.sizes[y.first]
        if same_size and leaves.key(x.first) == leaves.key(y.first):
            self._entries_meet(x.first, y.first, reason)
        elif self._key_meets_first(x, y, reason) or self._key_meets_first(y, x, reason):
            pass
        elif leaves.is_concat(x.first) or leaves.is_concat(y.first):
            self._line_up(x, y, reason)
        elif same_size:
            self._table_of_one_size(x, y, reason)
        else:
            self._divide_table(x, y, reason)

    def _entries_meet(self, x: int, y: int, reason: str) -> None:
        """Two tables by the same key: ``k?(a / b)`` and ``k?(c / d)``: a is c, and b is d."""
        pairs = list(zip(self.leaves.parts(x), self.leaves.parts(y), strict=True))
        for left, right in pairs:
            self.equate(left, right, reason)

    def _table_of_one_size(self, x: Side, y: Side, reason: str) -> None:
        """A table is what it meets, if nothing is known that speaks against it; else all of its
        entries are."""
        leaves = self.leaves
        for leaf, other in ((x.first, y.first), (y.first, x.first)):
            if leaf not in leaves.bound and leaves.is_open(leaf):
                leaves.become(leaf, (other,))
                return
        for node in (x.first, y.first):
            if leaves.key(node) is not None:
                self.cuts.collapse(node, reason)
        x.put_back([x.first])
        y.put_back([y.first])

    def _divide_table(self, x: Side, y: Side, reason: str) -> None:
        """A table and something of another size: ``k?(a[12] / b[12])`` against ``4`` is
        ``k?(a'[4] / b'[4])`` and ``k?(a''[3] / b''[3])``."""
        leaves = self.leaves
        common = gcd(leaves.sizes[x.first], leaves.sizes[y.first])
        if common == 1:
            self._line_up(x, y, reason)
            return
        tables = {side.first for side in (x, y) if leaves.key(side.first) is not None}
        for side in (x, y):
            split = self.cuts.split_table if side.first in tables else self.cuts.split
            whole = leaves.sizes[side.first] == common
            side.put_back([side.first] if whole else split(side.first, common, reason))

    def _key_meets_first(self, own: Side, other: Side, reason: str) -> bool:
        """A table whose key follows in the same product: equate the key first, so that tables meet
        tables.

        ``(t, k)``, as a channel shuffle makes it of a concatenation, against a leaf of 12: it
        becomes ``(6, 2)``, the 2 is cut as ``k`` is, by which the 6 becomes a table with the same
        key.

        Returns:
            Whether this was possible: the other product has, or can have, boundaries before and
            behind the key.
        """
        leaves, cuts = self.leaves, self.cuts
        key = leaves.key(own.first)
        if key is None:
            return False
        ours, theirs = leaves.expand(own.whole()), leaves.expand(other.whole())
        if key not in ours:
            return False
        at = ours.index(key)
        before, behind = ours[:at], ours[at + 1 :]
        items = leaves.size(behind)  # for each item of the key
        with_key = items * leaves.sizes[key]
        if not (cuts.divisible(theirs, items) and cuts.divisible(theirs, with_key)):
            return False
        their_before, their_end = cuts.divided(theirs, with_key, reason)
        their_key, their_behind = cuts.divided(their_end, items, reason)
        self.equate(their_key, (key,), reason)
        ends = [(their_before, before), (their_behind, behind)]
        if not self._is_keyed(behind, before):
            ends.reverse()
        for left, right in ends:
            self.equate(left, right, reason)
        own.behind.clear()
        other.behind.clear()
        return True

    def _is_keyed(self, atoms: Iterable[int], keys: Iterable[int]) -> bool:
        """Whether there is a table among some atoms whose key is among others."""
        roots = {self.leaves.key(atom) for atom in atoms} - {None}
        return not roots.isdisjoint(keys)

    # ---------------------------------------------------------------- concatenations

    def _concat_meets(self, concat: Side, other: Side, reason: str) -> None:
        """A concatenation against as many factors of the other product as make up its size.

        ``(a | b)`` of 12 items against ``(8, 3)``: of the 8 only a factor 4 is needed, so that 8 is
        ``(4, 2)``, and the concatenation is ``(4, 3)`` where that has a boundary.
        """
        leaves, node = self.leaves, concat.first
        size = leaves.sizes[node]
        total = 1
        factors: list[int] = []
        while total < size:
            factor = other.behind.pop()
            if size % (total * leaves.sizes[factor]) == 0:
                factors.append(factor)
                total *= leaves.sizes[factor]
            elif not self._divide_factor(factor, size, total, other, reason):
                self._line_up(concat, Side(node, other.behind), reason, (*factors, factor))
                return
        if self._is_keyed(factors, other.behind):
            self._line_up(concat, Side(node, other.behind), reason, tuple(factors))
            return
        self.concats.equate_stretches((node,), tuple(factors), reason)
        if leaves.tables.get(node):
            self.concats.rekey(node, tuple(factors))

    def _divide_factor(self, factor: int, size: int, total: int, other: Side, reason: str) -> bool:
        """Split a factor that is larger than what is wanting of a size; whether that goes."""
        leaves = self.leaves
        wanting = size // total
        if size % total or leaves.sizes[factor] % wanting or leaves.key(factor) is not None:
            return False
        split = self._split_concat if factor in leaves.bound else self.cuts.split
        other.put_back(split(factor, wanting, reason))
        return True

    def _split_concat(self, node: int, first: int, reason: str) -> Expr:
        """A concatenation as a product: every segment is cut alike."""
        slow = self.leaves.new(first, ())
        fast = self.leaves.new(self.leaves.sizes[node] // first, slow)
        self.concats.equate_stretches((node,), slow + fast, reason)
        self.concats.rekey(node, slow + fast)
        return slow + fast

    # ---------------------------------------------------------------- where nothing lines up

    def _line_up(self, x: Side, y: Side, reason: str, factors: Expr | None = None) -> None:
        """Cut both at all boundaries of either, up to the next common one.

        Args:
            factors: of ``y``, in place of its first.
        """
        left = [x.first]
        right = [y.first] if factors is None else list(factors)
        self._reach_boundary(left, right, x.behind, y.behind)
        self.concats.refine_both(tuple(left), tuple(right), reason)

    def _reach_boundary(
        self, left: list[int], right: list[int], after_left: list[int], after_right: list[int]
    ) -> None:
        """Take as many factors as make up a common stretch, with the keys of the tables among
        them."""
        leaves = self.leaves
        for behind in (after_left, after_right):
            behind[:] = reversed(leaves.expand(tuple(reversed(behind))))
        while True:
            m, n = leaves.size(tuple(left)), leaves.size(tuple(right))
            if m < n or (m == n and self._is_keyed(left, after_left)):
                left.append(after_left.pop())
            elif n < m or self._is_keyed(right, after_right):
                right.append(after_right.pop())
            else:
                return
