"""Taking axes apart: a leaf as a product or as stretches one behind the other, a table, any
expression.

Whatever may depend on a leaf that is cut into stretches becomes a table with an entry for each of
them.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from ._store import Concat, Expr, Piece, Product, Store, Table


class Cuts(Store):
    """The store, and the ways in which expressions are refined."""

    @abstractmethod
    def collapse(self, node: int, reason: str) -> None:
        """A table that nothing selects from has the same items in all its entries."""

    def is_open(self, leaf: int) -> bool:
        """Whether nothing is known yet of an unbound leaf that limits what it may depend on."""
        known = (
            leaf in self._bound or leaf in self._keys or leaf in self._reason or leaf in self._wild
        )
        return not known and not self.dependents(leaf)

    # ---------------------------------------------------------------- products

    def split(self, root: int, first: int, why: str) -> Expr:
        """A leaf as the product of ``first`` and the rest, each of which may depend on the
        other."""
        if first == self._size[root]:
            return (root,)
        p, q = self.new(first), self.new(self._size[root] // first)
        self._bound[root] = Product(p + q)
        self._inherit(root, p + q)
        self._made_by.setdefault(root, why)
        for own, other in ((p[0], q[0]), (q[0], p[0])):
            self._made_by[own] = self._made_by[root]
            for bound in self._keys.get(root, ()):
                self.bound_keys(own, [bound | {other}])
        return p + q

    def _inherit(self, root: int, parts: Expr) -> None:
        """New leaves that replace a root: fixed, wild and key to others as it was."""
        for part in parts:
            if root in self._reason:
                self._reason[part] = self._reason[root]
            if root in self._wild:
                self._wild.add(part)
            if root in self._anchors:
                self._anchors.add(part)
            if root in self._made_by:
                self._made_by[part] = self._made_by[root]
            if root in self._dependents:
                self._dependents.setdefault(part, set()).update(self._dependents[root])

    def divisible(self, atoms: Expr, behind: int) -> bool:
        """Whether a product has a boundary with ``behind`` items behind it, or can have one if a
        leaf is split."""
        return self._boundary(atoms, behind) is not None

    def divided(self, atoms: Expr, behind: int, why: str) -> tuple[Expr, Expr]:
        """A product as what stands before and behind a boundary: ``(6, 4)`` with 8 items behind as
        ``(3)``, ``(2, 4)``.

        Raises:
            ValueError: it is not :meth:`divisible` there.
        """
        place = self._boundary(atoms, behind)
        if place is None:
            raise ValueError(f"a product of {self.size(atoms)} items cannot be divided at {behind}")
        at, first = place
        if first == 1:
            return atoms[:at], atoms[at:]
        slow, fast = self.split(atoms[at], first, why)
        return (*atoms[:at], slow), (fast, *atoms[at + 1 :])

    def _boundary(self, atoms: Expr, behind: int) -> tuple[int, int] | None:
        """How many atoms stand before the boundary, and at which factor the next one has to be
        split (1: nowhere)."""
        total = 1
        for i in reversed(range(len(atoms))):
            if total == behind:
                return i + 1, 1
            n = self._size[atoms[i]]
            if total * n > behind:
                splits = (
                    behind % total == 0 and total * n % behind == 0 and atoms[i] not in self._bound
                )
                return (i, total * n // behind) if splits else None
            total *= n
        return 0, 1

    # ---------------------------------------------------------------- stretches

    def cut_leaf(
        self, root: int, sizes: Sequence[int], beside: Sequence[int] = (), why: str = ""
    ) -> None:
        """A leaf becomes a concatenation of fresh leaves; whatever may depend on it becomes a
        table.

        Args:
            beside: factors of the same product: those of which nothing is known yet may depend on
                it too.
            why: what runs through the items, for ``explain``.
        """
        dependents = [
            *self.dependents(root),
            *(a for a in dict.fromkeys(beside) if a != root and self.is_open(a)),
        ]
        segments = tuple(self.new(n) for n in sizes)
        made: dict[int, tuple[Expr, ...]] = {
            d: tuple(self.new(self._size[d]) for _ in sizes) for d in dependents
        }

        def inside(bound: frozenset[int], i: int) -> frozenset[int]:
            """The same keys where the root is in its segment ``i``."""
            own: set[int] = set()
            for key in self.expand(tuple(bound)):
                own.update(segments[i] if key == root else made[key][i] if key in made else (key,))
            return frozenset(own)

        bounds = {d: list(self._keys.get(d, ())) for d in (root, *dependents)}
        for d, entries in ((root, segments), *made.items()):
            for i, entry in enumerate(entries):
                self._inherit(d, entry)
                for leaf in entry:
                    self.bound_keys(leaf, [inside(bound, i) for bound in bounds[d]])
        self._bound[root] = Concat(segments, why)
        for d, entries in made.items():
            self._bind_table(d, root, entries)

    def told_by(self, factors: Sequence[int], why: str) -> str:
        """The operations that told factors from others, and the one that cuts them now; nothing if
        there were none."""
        before = dict.fromkeys(
            self._made_by[f] for f in factors if f in self._made_by and self._made_by[f] != why
        )
        return " and ".join([*before, why]) if before and why else ""

    def cut(self, expr: Expr, at: int, why: str = "") -> list[Piece]:
        """Cut one stretch after ``at`` items; returns all its stretches now.

        ``(3, 4)`` after 6 items becomes ``(4) | (2) | (2) | (4)``: the cut runs through the second
        of its three blocks, which thereby differs from the first and the third.
        """
        atoms = self.expand(expr)
        first, rest = atoms[0], atoms[1:]
        bound = self._bound.get(first)
        if isinstance(bound, Concat):
            out = self.pieces(expr)
        elif isinstance(bound, Table):
            out = self._cut_table(atoms, at, why)
        else:
            sizes = _around(self._size[first], *divmod(at, self.size(rest)))
            self.cut_leaf(first, sizes, rest, self.told_by((first,), why))
            out = self.pieces(expr)
        start = 0
        for i, piece in enumerate(out):
            size = self.size(piece.expr)
            if start < at < start + size:
                inner = self.cut(piece.expr, at - start, why)
                out[i : i + 1] = [Piece(p.expr, piece.path + p.path) for p in inner]
                break
            start += size
        return out

    def _cut_table(self, atoms: Expr, at: int, why: str) -> list[Piece]:
        """A product with a table in front as several, one behind the other: all entries are cut at
        the same places."""
        table, rest = self._bound[atoms[0]], atoms[1:]
        if self.root(table.key) not in rest:  # each entry with what hangs on it
            sizes = (at, self.size(atoms) - at)
            entries = (self.restrict(atoms, ((table.key, i),)) for i in range(len(table.entries)))
            columns = zip(*(self._in_stretches(e, sizes, why) for e in entries), strict=True)
            return [Piece(self.table(table.key, column)) for column in columns]
        sizes = _around(self._size[atoms[0]], *divmod(at, self.size(rest)))
        self._let_go(rest, {c for e in table.entries for c in self._concats(e)}, why)
        columns = zip(*(self._in_stretches(e, sizes, why) for e in table.entries), strict=True)
        return [Piece(self.table(table.key, column) + rest) for column in columns]

    def _let_go(self, expr: Expr, keys: set[int], why: str) -> None:
        """Tables that go by what will not be beside them any more become what all their entries
        are."""
        for atom in self.expand(expr):
            bound = self._bound.get(atom)
            if isinstance(bound, Table) and self.root(bound.key) in keys:
                self.collapse(atom, why)
            for part in _parts(self._bound.get(atom)):
                self._let_go(part, keys, why)

    def _concats(self, expr: Expr) -> Iterator[int]:
        """All concatenations that an expression is made of, at any depth."""
        for atom in self.expand(expr):
            bound = self._bound.get(atom)
            if isinstance(bound, Concat):
                yield atom
            for part in _parts(bound):
                yield from self._concats(part)

    def _in_stretches(self, expr: Expr, sizes: Sequence[int], why: str) -> list[Expr]:
        """An expression in stretches of the given sizes."""
        pieces = self.pieces(expr)
        out = []
        for size in sizes:
            chosen: list[Expr] = []
            while size:
                n = self.size(pieces[0].expr)
                if n > size:
                    pieces[:1] = self.cut(pieces[0].expr, size, why)
                else:
                    chosen.append(pieces.pop(0).expr)
                    size -= n
            out.append(self.concat(chosen))
        return out


def _around(items: int, whole: int, part: int) -> list[int]:
    """Sizes of the stretches of an axis that is cut behind ``whole`` items, or if ``part`` through
    the next one."""
    ends = [0, whole, whole + 1, items] if part else [0, whole, items]
    return [b - a for a, b in zip(ends, ends[1:], strict=False) if b > a]


def _parts(bound: Product | Concat | Table | None) -> tuple[Expr, ...]:
    """What a concatenation or a table is made of."""
    if isinstance(bound, Product):
        return (bound.parts,)
    return () if bound is None else bound.segments if isinstance(bound, Concat) else bound.entries
