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
A *wild* leaf is an axis along which nothing varies: it fits whatever it meets.
"""

from collections.abc import Iterable, Iterator
from math import prod

from ._bindings import Binding, Expr, Factors, Path, Segments, Stretch, Table


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
        if dependents := self._dependents.get(root):
            for atom in self.expand(expr):
                self._dependents.setdefault(atom, set()).update(dependents)

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
        entries = [self.expand(e) for e in table.parts]
        first = entries[0]
        if all(e == first for e in entries):
            self.become(root, first)
        elif len(first) > 1 and len({self._shape(e) for e in entries}) == 1:
            columns = [[(leaf,) for leaf in column] for column in zip(*entries, strict=True)]
            factors = [self.table(table.key, column) for column in columns]
            self.become(root, sum(factors, ()))
        return self.bound[root]

    def _shape(self, atoms: Expr) -> tuple[int, ...]:
        return tuple(self.sizes[atom] for atom in atoms)

    def unbound(self, expr: Expr) -> Iterator[int]:
        """Every unbound leaf that the expression is made of, through concatenations and tables."""
        for root in self.expand(expr):
            if root in self.bound:
                for part in self.parts(root):
                    yield from self.unbound(part)
            else:
                yield root

    def stretches(self, expr: Expr) -> list[Stretch]:
        """The expression as a sequence of stretches: a concatenation in front is taken apart with
        what hangs on it."""
        atoms = self.expand(expr)
        if not atoms or not self.is_concat(atoms[0]):
            return [Stretch(atoms)]
        out: list[Stretch] = []
        for i, segment in enumerate(self.parts(atoms[0])):
            step = ((atoms[0], i),)
            inside = segment + self.restrict(atoms[1:], step)
            out += [Stretch(s.expr, step + s.path) for s in self.stretches(inside)]
        return out

    def restrict(self, expr: Expr, path: Path) -> Expr:
        """The expression where the concatenations of ``path`` are in the given segments."""
        for key, segment in path:
            key = self.root(key)
            if self.tables.get(key):
                inside = [self._restricted(atom, key, segment) for atom in self.expand(expr)]
                expr = sum(inside, ())
        return expr

    def _restricted(self, atom: int, key: int, segment: int) -> Expr:
        """What an atom is in one segment of a concatenation."""
        bound = self.bound.get(atom)
        if not isinstance(bound, (Segments, Table)):
            return (atom,)
        if isinstance(bound, Table) and self.root(bound.key) == key:
            return bound.parts[segment]
        if self.tables.get(atom) or not self._goes_by(atom, key):
            return (atom,)
        parts = [self.restrict(part, ((key, segment),)) for part in bound.parts]
        return self.table(bound.key, parts) if isinstance(bound, Table) else self.concat(parts)

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

    def renewed(self, expr: Expr) -> Expr:
        """The expression with fresh wild leaves: each use of a uniform axis may meet something
        else."""
        atoms = self.expand(expr)
        if not any(map(self.has_wild, atoms)):
            return atoms
        return sum(map(self._renewed, atoms), ())

    def _renewed(self, atom: int) -> Expr:
        if atom in self.wild:
            return self.new(self.sizes[atom], wild=True)
        if self.is_concat(atom) and self.has_wild(atom) and not self.tables.get(atom):
            return self.concat(map(self.renewed, self.parts(atom)))
        return (atom,)

    def has_wild(self, atom: int) -> bool:
        """Whether nothing varies along an atom, or along a stretch of it."""
        if not self.is_concat(atom):
            return atom in self.wild
        return any(self.has_wild(a) for part in self.parts(atom) for a in self.expand(part))

    # ---------------------------------------------------------------- fixing

    def fix(self, expr: Expr, reason: str) -> None:
        """Nothing may move along this axis. The first reason is kept: it is the cause of the later
        ones."""
        for root in self.unbound(expr):
            if root not in self.reasons:
                self.reasons[root] = reason
                self.wild.discard(root)
                self.key_bounds[root] = [frozenset()]

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
        if parts := () if self.tables.get(atom) else self.parts(atom):
            reasons = [self.inert(part) for part in parts]
            return None if None in reasons else next(filter(None, reasons), "")
        if atom not in self.reasons or atom in self.anchors or self.dependents(atom):
            return None
        return self.reasons[atom]

    def anchor(self, expr: Expr) -> None:
        """Keep the identity of an axis although it is fixed."""
        self.anchors.update(self.unbound(expr))

    # ---------------------------------------------------------------- keys

    def keys(self, leaf: int) -> frozenset[int]:
        """What the permutation of an unbound leaf may depend on, in unbound leaves."""
        bounds = self.key_bounds.get(leaf)
        if not bounds or (len(bounds) == 1 and not bounds[0]):
            return frozenset()
        return frozenset.intersection(*(frozenset(self._unbound_keys(b)) for b in bounds))

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
                self._dependents.setdefault(self.root(key), set()).add(leaf)

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
        registers = (self.bound, self.key_bounds, self.reasons, self.wild)
        return not any(leaf in register for register in registers) and not self.dependents(leaf)

    # ---------------------------------------------------------------- merging and replacing leaves

    def merge_roots(self, root: int, gone: int) -> None:
        """Of two roots one stands for both; what they are made of is the caller's affair."""
        self._parent[gone] = root

    def unite(self, x: int, y: int) -> None:
        """Two unbound leaves list the same items."""
        if x in self.wild:
            x, y = y, x  # a wild leaf becomes what it meets
        self.merge_roots(x, y)
        if y in self.reasons:
            self.reasons.setdefault(x, self.reasons[y])
        if y in self.anchors:
            self.anchors.add(x)
        if y in self.made_by:
            self.made_by.setdefault(x, self.made_by[y])
        self._dependents.setdefault(x, set()).update(self._dependents.pop(y, ()))
        if bounds := self.key_bounds.pop(y, None):
            self.bound_keys(x, bounds)
            self._touched.add(x)
        if x in self.reasons:
            self.key_bounds[x] = [frozenset()]

    def settle(self) -> None:
        """The keys of merged leaves are those that both had: taken once all merges of an operation
        are known."""
        for leaf in map(self.root, self._touched):
            if leaf in self.key_bounds and leaf not in self.bound:
                self.key_bounds[leaf] = [self.keys(leaf)]
        self._touched.clear()

    def inherit(self, root: int, parts: Expr) -> None:
        """New leaves that replace a root: fixed, wild and key to others as it was."""
        for part in parts:
            for marks in (self.wild, self.anchors):
                if root in marks:
                    marks.add(part)
            for notes in (self.reasons, self.made_by):
                if root in notes:
                    notes[part] = notes[root]
            if root in self._dependents:
                self._dependents.setdefault(part, set()).update(self._dependents[root])
