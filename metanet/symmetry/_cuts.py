"""Taking axes apart: a leaf as a product or as stretches one behind the other, a table, any
expression.

Whatever may depend on a leaf that is cut into stretches becomes a table with an entry for each of
them.
"""

from collections.abc import Callable, Iterator, Sequence

from ._bindings import Expr, Factors, Segments, Stretch, Table
from ._leaves import Leaves

Equate = Callable[[Expr, Expr, str], None]
"""States that both axes list the same items in the same order, and why."""


class Cuts:
    """The ways in which expressions are refined.

    Args:
        leaves: what is refined.
        equate: for equations that follow from a cut.
    """

    def __init__(self, leaves: Leaves, equate: Equate) -> None:
        self.leaves = leaves
        self.equate = equate

    # ---------------------------------------------------------------- products

    def split(self, root: int, first: int, why: str) -> Expr:
        """A leaf as the product of ``first`` and the rest, each of which may depend on the
        other."""
        leaves = self.leaves
        if first == leaves.sizes[root]:
            return (root,)
        slow = leaves.new(first)
        fast = leaves.new(leaves.sizes[root] // first)
        leaves.bound[root] = Factors(slow + fast)
        leaves.inherit(root, slow + fast)
        told_by = leaves.made_by.setdefault(root, why)
        for part, other in ((slow[0], fast[0]), (fast[0], slow[0])):
            leaves.made_by[part] = told_by
            bounds = leaves.key_bounds.get(root, ())
            leaves.bound_keys(part, [bound | {other} for bound in bounds])
        return slow + fast

    def split_table(self, root: int, first: int, reason: str) -> Expr:
        """A table as the product of two: all its entries are split alike."""
        leaves = self.leaves
        table = leaves.bound[root]
        assert isinstance(table, Table)
        slow: list[Expr] = []
        fast: list[Expr] = []
        for entry in table.parts:
            slow.append(leaves.new(first))
            fast.append(leaves.new(leaves.sizes[root] // first))
            self.equate(entry, slow[-1] + fast[-1], reason)
        leaves.become(root, leaves.table(table.key, slow) + leaves.table(table.key, fast))
        return leaves.expand((root,))

    def collapse(self, node: int, reason: str) -> None:
        """A table that nothing selects from has the same items in all its entries."""
        first, *others = self.leaves.parts(node)
        for entry in others:
            self.equate(first, entry, reason)
        self.leaves.become(node, first)

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
            size = self.leaves.size(atoms)
            raise ValueError(f"a product of {size} items cannot be divided at {behind}")
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
            reach = total * self.leaves.sizes[atoms[i]]
            if reach > behind:
                even = behind % total == 0 and reach % behind == 0
                unbound = atoms[i] not in self.leaves.bound
                return (i, reach // behind) if even and unbound else None
            total = reach
        return 0, 1

    # ---------------------------------------------------------------- stretches

    def cut_leaf(
        self, root: int, sizes: Sequence[int], beside: Sequence[int] = (), why: str = ""
    ) -> None:
        """A leaf becomes a concatenation of fresh leaves; whatever may depend on it becomes a
        table.

        Three heads with dims of their own are cut into one and two::

            heads[3]  dims[8] per head    ->    (a[1] | b[2])   heads?(dims' / dims'' per b)

        Args:
            beside: factors of the same product: those of which nothing is known yet may depend on
                it too.
            why: what runs through the items, for ``explain``.
        """
        leaves = self.leaves
        others = [a for a in dict.fromkeys(beside) if a != root and leaves.is_open(a)]
        dependents = [*leaves.dependents(root), *others]
        segments = tuple(leaves.new(n) for n in sizes)
        entries = {d: tuple(leaves.new(leaves.sizes[d]) for _ in sizes) for d in dependents}
        parts = {**entries, root: segments}  # of a leaf that is its own key the segments count

        def inside(bound: frozenset[int], i: int) -> frozenset[int]:
            """The same keys where the root is in its segment ``i``."""
            keys: set[int] = set()
            for key in leaves.expand(tuple(bound)):
                is_cut = key in parts
                keys.update(parts[key][i] if is_cut else (key,))
            return frozenset(keys)

        bounds = {d: list(leaves.key_bounds.get(d, ())) for d in parts}
        for d, fresh in ((root, segments), *entries.items()):
            for i, part in enumerate(fresh):
                leaves.inherit(d, part)
                for leaf in part:
                    leaves.bound_keys(leaf, [inside(bound, i) for bound in bounds[d]])
        leaves.bound[root] = Segments(segments, why)
        for d, fresh in entries.items():
            leaves.bind_table(d, root, fresh)

    def told_by(self, factors: Sequence[int], why: str) -> str:
        """The operations that told factors from others, and the one that cuts them now; nothing if
        there were none."""
        made_by = self.leaves.made_by
        before = dict.fromkeys(made_by[f] for f in factors if made_by.get(f, why) != why)
        return " and ".join([*before, why]) if before and why else ""

    def cut(self, expr: Expr, at: int, why: str = "") -> list[Stretch]:
        """Cut one stretch after ``at`` items; returns all its stretches now.

        ``(3, 4)`` after 6 items becomes ``(4) | (2) | (2) | (4)``: the cut runs through the second
        of its three blocks, which thereby differs from the first and the third.
        """
        leaves = self.leaves
        atoms = leaves.expand(expr)
        first, behind = atoms[0], atoms[1:]
        if leaves.key(first) is not None:
            stretches = self._cut_table(atoms, at, why)
        else:
            if not leaves.is_concat(first):
                sizes = _around(leaves.sizes[first], *divmod(at, leaves.size(behind)))
                self.cut_leaf(first, sizes, behind, self.told_by((first,), why))
            stretches = leaves.stretches(expr)
        return self.cut_within(stretches, at, why)

    def cut_within(self, stretches: Sequence[Stretch], at: int, why: str = "") -> list[Stretch]:
        """The stretches of an axis with a boundary after ``at`` items: the one that it runs through
        is cut."""
        start = 0
        for i, stretch in enumerate(stretches):
            size = self.leaves.size(stretch.expr)
            if start < at < start + size:
                inner = self.cut(stretch.expr, at - start, why)
                cut = [Stretch(s.expr, stretch.path + s.path) for s in inner]
                return [*stretches[:i], *cut, *stretches[i + 1 :]]
            start += size
        return list(stretches)

    def _cut_table(self, atoms: Expr, at: int, why: str) -> list[Stretch]:
        """A product with a table in front as several, one behind the other: all entries are cut at
        the same places."""
        leaves = self.leaves
        table, behind = leaves.bound[atoms[0]], atoms[1:]
        assert isinstance(table, Table)
        if leaves.root(table.key) in behind:
            sizes = _around(leaves.sizes[atoms[0]], *divmod(at, leaves.size(behind)))
            self._let_go(behind, {c for e in table.parts for c in self._concats(e)}, why)
            entries = iter(table.parts)
        else:  # each entry with what hangs on it
            sizes = [at, leaves.size(atoms) - at]
            numbers = range(len(table.parts))
            entries = (leaves.restrict(atoms, ((table.key, i),)) for i in numbers)
            behind = ()
        columns = zip(*(self._in_stretches(e, sizes, why) for e in entries), strict=True)
        return [Stretch(leaves.table(table.key, column) + behind) for column in columns]

    def _let_go(self, expr: Expr, keys: set[int], why: str) -> None:
        """Tables that go by what will not be beside them any more become what all their entries
        are."""
        leaves = self.leaves
        for atom in leaves.expand(expr):
            if leaves.key(atom) in keys:
                self.collapse(atom, why)
            bound = leaves.bound.get(atom)
            inner = (bound.factors,) if isinstance(bound, Factors) else leaves.parts(atom)
            for part in inner:
                self._let_go(part, keys, why)

    def _concats(self, expr: Expr) -> Iterator[int]:
        """All concatenations that an expression is made of, at any depth."""
        for atom in self.leaves.expand(expr):
            if self.leaves.is_concat(atom):
                yield atom
            for part in self.leaves.parts(atom):
                yield from self._concats(part)

    def _in_stretches(self, expr: Expr, sizes: Sequence[int], why: str) -> list[Expr]:
        """An expression in stretches of these sizes."""
        leaves = self.leaves
        stretches = leaves.stretches(expr)
        out: list[Expr] = []
        for size in sizes:
            parts: list[Expr] = []
            while size:
                if leaves.size(stretches[0].expr) > size:
                    stretches[:1] = self.cut(stretches[0].expr, size, why)
                else:
                    parts.append(stretches.pop(0).expr)
                    size -= leaves.size(parts[-1])
            out.append(leaves.concat(parts))
        return out


def _around(items: int, whole: int, part: int) -> list[int]:
    """Sizes of the stretches of an axis that is cut behind ``whole`` items, or if ``part`` through
    the next one."""
    sizes = [whole, 1, items - whole - 1] if part else [whole, items - whole]
    return [size for size in sizes if size > 0]
