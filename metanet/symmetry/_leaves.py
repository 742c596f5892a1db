"""The leaves that axes are made of: a union-find, whose roots are bound to products, concatenations
and tables of others.

An *expression* is a row-major product, a flat tuple of leaves; an axis of size 1 is the empty
product. Binding is global: whatever is learnt of a leaf holds in every tensor that has it. A root
of the union-find is one of

- free or fixed (with a reason): an *unbound* leaf, what axes are made of in the end;
- :class:`Factors`: a product of leaves;
- :class:`Segments`: a concatenation of expressions, once it has been cut;
- a :class:`Table`: one expression for each segment of a concatenation elsewhere in the same tensor,
  its key. A leaf that may depend on another (heads on which of q, k, v they belong to) becomes a
  table when that other is cut.

A fused projection of 24 rows, seen as ``(3, 8)`` and then taken apart::

    rows                      24
    after the view            which[3]  dims[8]               rows is Factors(which, dims)
    after taking q = x[0]     (1 | 2)   which?(q[8] / rest[8])   which is Segments, dims a Table by it

Besides, a leaf has *keys*: the leaves its permutation may depend on (dims keyed by head: a wreath
product). They are granted generously when a leaf is made and only ever taken away (``_spaces.py``).
A *wild* leaf is an axis along which nothing varies: it fits whatever it meets (``_wild.py``).
"""

from collections.abc import Iterable, Iterator
from math import prod

from ._bindings import Binding, Expr, Factors, Path, Segments, Stretch, Table

_NO_KEYS: list[frozenset[int]] = [frozenset()]  # the bounds of a leaf that depends on nothing


class Leaves:
    """What is bound to what, what is fixed and why, and what may depend on what.

    Attributes:
        sizes: number of items of every leaf.
        bound: what a root consists of, unless it is unbound.
        reasons: why an unbound leaf is fixed.
        wild: roots along which nothing varies.
        tables: the tables that go by a concatenation.
        key_bounds: for an unbound leaf sets of leaves, each an upper bound of its keys; absent: no
            bound is known yet.
        made_by: for a factor the operation that told it from the other factors.
        anchors: fixed leaves whose identity matters though nobody is keyed by them.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.bound: dict[int, Binding] = {}
        self.reasons: dict[int, str] = {}
        self.wild: set[int] = set()
        self.tables: dict[int, list[int]] = {}
        self.key_bounds: dict[int, list[frozenset[int]]] = {}
        self.made_by: dict[int, str] = {}
        self.anchors: set[int] = set()
        self._parent: list[int] = []
        self._dependents: dict[int, set[int]] = {}  # all that ever had the leaf among their keys
        self._touched: set[int] = set()  # leaves whose keys have several bounds: see settle()

    # ---------------------------------------------------------------- making leaves

    def new(self, size: int, keys: Iterable[int] | None = None, wild: bool = False) -> Expr:
        """An axis of ``size`` items that nothing is known about yet.

        Args:
            keys: what its permutation may depend on; ``None`` leaves it open.
            wild: nothing varies along it.
        """
        if size == 1:
            return ()
        leaf = len(self._parent)
        self._parent.append(leaf)
        self.sizes.append(size)
        if wild:
            self.wild.add(leaf)
        if keys is not None:
            self.bound_keys(leaf, [frozenset(keys)])
        return (leaf,)

    def concat(self, segments: Iterable[Expr]) -> Expr:
        """An axis made of expressions, one behind the other."""
        parts = tuple(segments)
        if len(parts) == 1:
            return parts[0]
        node = self.new(sum(map(self.size, parts)))
        self.bound[node[0]] = Segments(parts)
        return node

    def table(self, key: int, entries: Iterable[Expr]) -> Expr:
        """An axis that is ``entries[i]`` in segment ``i`` of the concatenation ``key``."""
        parts = tuple(entries)
        if len(set(map(self.expand, parts))) == 1:
            return parts[0]
        node = self.new(self.size(parts[0]))
        self.bind_table(node[0], key, parts)
        return node

    def bind_table(self, root: int, key: int, entries: tuple[Expr, ...]) -> None:
        """A root is this table from now on."""
        self.bound[root] = Table(key, entries)
        self.tables.setdefault(self.root(key), []).append(root)

    def become(self, root: int, expr: Expr) -> None:
        """A root is this product from now on; whatever may depend on it may depend on the
        factors."""
        self.bound[root] = Factors(expr)
        dependents = self._dependents.get(root)
        if dependents:
            for atom in self.expand(expr):
                self._add_dependents(atom, dependents)

    # ---------------------------------------------------------------- reading

    def root(self, leaf: int) -> int:
        """What a leaf is by now."""
        parent = self._parent
        while parent[leaf] != leaf:
            parent[leaf] = leaf = parent[parent[leaf]]
        return leaf

    def size(self, expr: Expr) -> int:
        """Number of items of an axis."""
        sizes = self.sizes
        return prod([sizes[leaf] for leaf in expr])

    def binding(self, root: int) -> Binding | None:
        """What a root consists of; ``None`` for an unbound leaf."""
        return self.bound.get(root)

    def parts(self, root: int) -> tuple[Expr, ...]:
        """The segments of a concatenation, the entries of a table; none of an unbound leaf."""
        bound = self.bound.get(root)
        return bound.parts if isinstance(bound, (Segments, Table)) else ()

    def key(self, root: int) -> int | None:
        """The concatenation that a root goes by, if it is a table."""
        bound = self.bound.get(root)
        return self.root(bound.key) if isinstance(bound, Table) else None

    def is_concat(self, root: int) -> bool:
        """Whether a root consists of segments."""
        return isinstance(self.bound.get(root), Segments)

    def reason(self, root: int) -> str | None:
        """Why an unbound leaf is fixed; ``None`` if it is free."""
        return self.reasons.get(root)

    def is_wild(self, root: int) -> bool:
        """Whether nothing varies along a root."""
        return root in self.wild

    def expand(self, expr: Expr) -> Expr:
        """The expression in roots: unbound leaves, concatenations and tables; products are
        multiplied out."""
        out: list[int] = []
        stack = list(reversed(expr))
        while stack:
            root = self.root(stack.pop())
            bound = self.bound.get(root)
            if bound is None:  # most are: this loop is where derivation spends its time
                out.append(root)
                continue
            if isinstance(bound, Table):
                bound = self._simplified(root, bound)
            if isinstance(bound, Factors):
                stack.extend(reversed(bound.factors))
            else:
                out.append(root)
        return tuple(out)

    def _simplified(self, root: int, table: Table) -> Binding:
        """A table whose entries agree is no table; one whose entries are products alike is a
        product of tables."""
        # k?(a x b / a x b)                    a x b
        # k?(a[2] x b[3] / c[2] x d[3])        k?(a / c) x k?(b / d)
        # k?(a[2] x b[3] / c[3] x d[2])        stays: the sizes differ
        entries = list(map(self.expand, table.parts))
        first = entries[0]
        if entries.count(first) == len(entries):
            self.become(root, first)
            return self.bound[root]
        shapes = set(map(self._shape, entries))
        if len(first) > 1 and len(shapes) == 1:
            self.become(root, self._column_by_column(table.key, entries))
        return self.bound[root]

    def _column_by_column(self, key: int, entries: list[Expr]) -> Expr:
        """A product of tables: one of the first factors of all entries, one of the second, ..."""
        product: Expr = ()
        for column in zip(*entries, strict=True):
            factors = [(leaf,) for leaf in column]
            product += self.table(key, factors)
        return product

    def _shape(self, atoms: Expr) -> tuple[int, ...]:
        return tuple([self.sizes[atom] for atom in atoms])

    def unbound(self, expr: Expr) -> Iterator[int]:
        """Every unbound leaf that the expression is made of, through concatenations and tables."""
        for root in self.expand(expr):
            if root not in self.bound:
                yield root
                continue
            for part in self.parts(root):
                yield from self.unbound(part)

    def stretches(self, expr: Expr) -> list[Stretch]:
        """The expression as a sequence of stretches: a concatenation in front is taken apart with
        what hangs on it."""
        # k x d, where k is (q | v) and d the table k?(a / b): q x a, then v x b
        atoms = self.expand(expr)
        if not atoms or not self.is_concat(atoms[0]):
            return [Stretch(atoms)]
        first = atoms[0]
        behind = atoms[1:]
        out: list[Stretch] = []
        for i, segment in enumerate(self.parts(first)):
            step = ((first, i),)
            inside = segment + self.restrict(behind, step)
            for inner in self.stretches(inside):
                out.append(Stretch(inner.expr, step + inner.path))
        return out

    def restrict(self, expr: Expr, path: Path) -> Expr:
        """The expression where the concatenations of ``path`` are in the given segments."""
        for key, segment in path:
            key = self.root(key)
            if not self.tables.get(key):  # nothing differs between its segments
                continue
            inside = [self._restricted(atom, key, segment) for atom in self.expand(expr)]
            expr = sum(inside, ())
        return expr

    def _restricted(self, atom: int, key: int, segment: int) -> Expr:
        """What an atom is in one segment of a concatenation."""
        # in segment 1 of k:   k?(a / b)            b
        #                      m?(k?(a / b) / c)    m?(b / c)
        #                      (k?(a / b) | c)      (b | c), unless tables go by that very node
        bound = self.bound.get(atom)
        if not isinstance(bound, (Segments, Table)):
            return (atom,)
        if isinstance(bound, Table) and self.root(bound.key) == key:
            return bound.parts[segment]
        if self.tables.get(atom) or not self._goes_by(atom, key):
            return (atom,)
        step = ((key, segment),)
        parts = [self.restrict(part, step) for part in bound.parts]
        if isinstance(bound, Table):
            return self.table(bound.key, parts)
        return self.concat(parts)

    def _goes_by(self, atom: int, key: int) -> bool:
        """Whether an atom is or has inside a table that the key selects from."""
        return any(self.key(t) == key for t in self.tables_within(atom))

    def tables_within(self, atom: int) -> Iterator[int]:
        """All tables that an atom is made of, at any depth, itself first."""
        bound = self.bound.get(atom)
        if bound is None:
            return
        if isinstance(bound, Table):
            yield atom
        for part in self.parts(atom):
            for inner in self.expand(part):
                yield from self.tables_within(inner)

    # ---------------------------------------------------------------- fixing

    def fix(self, expr: Expr, reason: str) -> None:
        """Nothing may move along this axis. The first reason is kept: it is the cause of the later
        ones."""
        for root in self.unbound(expr):
            if root in self.reasons:
                continue
            self.reasons[root] = reason
            self.wild.discard(root)
            self.set_keys(root, ())

    def inert(self, expr: Expr) -> str | None:
        """The reason if the whole expression is fixed and nobody needs to tell its items apart;
        else ``None``."""
        why = ""
        for atom in self.expand(expr):
            reason = self._inert(atom)
            if reason is None:
                return None
            why = reason or why
        return why

    def _inert(self, atom: int) -> str | None:
        parts = self.parts(atom)
        if parts and not self.tables.get(atom):
            return self._all_inert(parts)
        if atom not in self.reasons:
            return None
        is_told_apart = atom in self.anchors or self.dependents(atom)
        return None if is_told_apart else self.reasons[atom]

    def _all_inert(self, parts: Iterable[Expr]) -> str | None:
        """The first reason that tells something, if all parts are inert; else ``None``."""
        reasons = list(map(self.inert, parts))
        return None if None in reasons else next(filter(None, reasons), "")

    def anchor(self, expr: Expr) -> None:
        """Keep the identity of an axis although it is fixed."""
        self.anchors.update(self.unbound(expr))

    # ---------------------------------------------------------------- keys

    def keys(self, leaf: int) -> frozenset[int]:
        """What the permutation of an unbound leaf may depend on, in unbound leaves."""
        # two bounds, {heads, rows} and {heads, dims}: only on heads
        bounds = self.key_bounds.get(leaf)
        if not bounds or bounds == _NO_KEYS:
            return frozenset()
        in_leaves = [frozenset(self._unbound_keys(bound)) for bound in bounds]
        return frozenset.intersection(*in_leaves)

    def _unbound_keys(self, keys: Iterable[int]) -> Iterator[int]:
        """Keys in unbound leaves: of a product all factors. One that was cut has turned its
        dependents into tables."""
        for key in keys:
            for atom in self.expand((key,)):
                if atom not in self.bound:
                    yield atom

    def set_keys(self, leaf: int, keys: Iterable[int]) -> None:
        """What the permutation of a leaf may depend on, in place of all that was known."""
        self.key_bounds[leaf] = [frozenset(keys)]

    def bound_keys(self, leaf: int, bounds: Iterable[frozenset[int]]) -> None:
        """Add upper bounds for the keys of a leaf."""
        for bound in bounds:
            self.key_bounds.setdefault(leaf, []).append(bound)
            for key in bound:
                self._add_dependents(self.root(key), (leaf,))

    def _add_dependents(self, leaf: int, dependents: Iterable[int]) -> None:
        """These may have the leaf among their keys."""
        self._dependents.setdefault(leaf, set()).update(dependents)

    def dependents(self, leaf: int) -> list[int]:
        """Unbound leaves that have this one among their keys."""
        candidates = self._dependents.get(leaf)
        if not candidates:
            return []
        alive = {d for d in map(self.root, candidates) if d not in self.bound}
        self._dependents[leaf] = alive
        return sorted(d for d in alive if leaf in self.keys(d))

    def is_open(self, leaf: int) -> bool:
        """Whether nothing is known yet of an unbound leaf that limits what it may depend on."""
        limits = (self.bound, self.key_bounds, self.reasons, self.wild)
        return not any(leaf in limit for limit in limits) and not self.dependents(leaf)

    # ---------------------------------------------------------------- merging and replacing leaves

    def merge_roots(self, root: int, gone: int) -> None:
        """Of two roots one stands for both; what they are made of is the caller's affair."""
        self._parent[gone] = root

    def unite(self, x: int, y: int) -> None:
        """Two unbound leaves list the same items."""
        if x in self.wild:
            x, y = y, x  # a wild leaf becomes what it meets
        self.merge_roots(x, y)
        for notes in (self.reasons, self.made_by):
            if y in notes:
                notes.setdefault(x, notes[y])
        if y in self.anchors:
            self.anchors.add(x)
        self._add_dependents(x, self._dependents.pop(y, ()))
        bounds = self.key_bounds.pop(y, None)
        if bounds:
            self.bound_keys(x, bounds)
            self._touched.add(x)
        if x in self.reasons:
            self.set_keys(x, ())

    def settle(self) -> None:
        """The keys of merged leaves are those that both had: taken once all merges of an operation
        are known."""
        for leaf in map(self.root, self._touched):
            if leaf in self.key_bounds and leaf not in self.bound:
                self.set_keys(leaf, self.keys(leaf))
        self._touched.clear()

    def inherit(self, root: int, parts: Expr) -> None:
        """New leaves that replace a root: fixed, wild and key to others as it was."""
        for marks in (self.wild, self.anchors):
            if root in marks:
                marks.update(parts)
        for notes in (self.reasons, self.made_by):
            if root in notes:
                notes.update(dict.fromkeys(parts, notes[root]))
        dependents = self._dependents.get(root, ())
        for part in parts:
            self._add_dependents(part, dependents)
