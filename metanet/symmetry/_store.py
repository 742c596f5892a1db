"""The store that derivation works in: leaves in a union-find, bound to products, concatenations and
tables of others.

An *expression* is a row-major product, a flat tuple of leaves; an axis of size 1 is the empty
product. Binding is global: whatever is learnt of a leaf holds in every tensor that has it. A root
of the union-find is one of

- free or fixed (with a reason): an *unbound* leaf, what axes are made of in the end;
- a product of leaves;
- a concatenation of expressions, its segments, once it has been cut;
- a table: one expression for each segment of a concatenation elsewhere in the same tensor, its key.
  A leaf that may depend on another (heads on which of q, k, v they belong to) becomes a table when
  that other is cut.

Besides, a leaf has *keys*: the leaves its permutation may depend on (dims keyed by head: a wreath
product). They are granted generously when a leaf is made and only ever taken away (``_spaces.py``).
A *wild* leaf is an axis along which nothing varies: it fits whatever it meets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

Expr = tuple[int, ...]


@dataclass(slots=True)
class Product:
    """Row-major, the last part runs fastest."""

    parts: Expr


@dataclass(slots=True)
class Concat:
    """One segment behind the other; tables of other axes may have an entry for each.

    Attributes:
        why: what makes it several, if it is not put together of several.
    """

    segments: tuple[Expr, ...]
    why: str = ""


@dataclass(slots=True)
class Table:
    """``entries[i]`` where the concatenation ``key`` is in its segment ``i``."""

    key: int
    entries: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an expression, and the segments of which concatenations one is in there."""

    expr: Expr
    path: tuple[tuple[int, int], ...] = ()


class Store:
    """The store itself: what is bound to what, what is fixed and why, and what may depend on
    what."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._bound: dict[int, Product | Concat | Table] = {}
        self._reason: dict[int, str] = {}
        self._wild: set[int] = set()
        # Unbound leaf -> sets of leaves, each an upper bound of its keys; absent: no bound known
        # yet.
        self._keys: dict[int, list[frozenset[int]]] = {}
        self._dependents: dict[
            int, set[int]
        ] = {}  # leaf -> those that have had it among their keys
        self._tables: dict[int, list[int]] = {}  # concatenation -> tables that it is the key of
        self._made_by: dict[
            int, str
        ] = {}  # factor -> the operation that told it from the other factors
        # fixed leaves whose identity matters though nobody is keyed by them
        self._anchors: set[int] = set()

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
        self._size.append(size)
        if wild:
            self._wild.add(leaf)
        if keys is not None:
            self.bound_keys(leaf, [frozenset(keys)])
        return (leaf,)

    def concat(self, segments: Iterable[Expr]) -> Expr:
        """An axis made of expressions, one behind the other."""
        kept = tuple(segments)
        if len(kept) == 1:
            return kept[0]
        node = self.new(sum(map(self.size, kept)))
        self._bound[node[0]] = Concat(kept)
        return node

    def table(self, key: int, entries: Iterable[Expr]) -> Expr:
        """An axis that is ``entries[i]`` in segment ``i`` of the concatenation ``key``."""
        kept = tuple(entries)
        if len(set(map(self.expand, kept))) == 1:
            return kept[0]
        node = self.new(self.size(kept[0]))
        self._bind_table(node[0], key, kept)
        return node

    def _bind_table(self, root: int, key: int, entries: tuple[Expr, ...]) -> None:
        self._bound[root] = Table(key, entries)
        self._tables.setdefault(self.root(key), []).append(root)

    # ---------------------------------------------------------------- reading

    def root(self, leaf: int) -> int:
        parent = self._parent
        while parent[leaf] != leaf:
            parent[leaf] = leaf = parent[parent[leaf]]
        return leaf

    def size(self, expr: Expr) -> int:
        return prod(self._size[leaf] for leaf in expr)

    def binding(self, root: int) -> Product | Concat | Table | None:
        return self._bound.get(root)

    def reason(self, root: int) -> str | None:
        """Why an unbound leaf is fixed; ``None`` if it is free."""
        return self._reason.get(root)

    def is_wild(self, root: int) -> bool:
        return root in self._wild

    def expand(self, expr: Expr) -> Expr:
        """The expression in roots: unbound leaves, concatenations and tables; products are
        multiplied out."""
        out: list[int] = []
        stack = list(reversed(expr))
        while stack:
            root = self.root(stack.pop())
            bound = self._bound.get(root)
            if bound is None or isinstance(bound, Concat):
                out.append(root)
                continue
            if isinstance(bound, Table):
                self._simplify(root, bound)
                bound = self._bound[root]
                if isinstance(bound, Table):
                    out.append(root)
                    continue
            stack.extend(reversed(bound.parts))
        return tuple(out)

    def _simplify(self, root: int, table: Table) -> None:
        """A table whose entries agree is no table; one whose entries are products alike is a
        product of tables."""
        entries = [self.expand(e) for e in table.entries]
        first = entries[0]
        if all(e == first for e in entries):
            self.become(root, first)
            return
        shape = [self._size[leaf] for leaf in first]
        if len(first) > 1 and all([self._size[leaf] for leaf in e] == shape for e in entries):
            columns = zip(*entries, strict=True)
            self.become(
                root,
                tuple(leaf for c in columns for leaf in self.table(table.key, [(x,) for x in c])),
            )

    def unbound(self, expr: Expr) -> Iterable[int]:
        """Every unbound leaf that the expression is made of, through concatenations and tables."""
        for root in self.expand(expr):
            bound = self._bound.get(root)
            if bound is None:
                yield root
            else:
                for part in bound.segments if isinstance(bound, Concat) else bound.entries:
                    yield from self.unbound(part)

    def pieces(self, expr: Expr) -> list[Piece]:
        """The expression as a sequence of stretches: a concatenation in front is taken apart with
        what hangs on it."""
        atoms = self.expand(expr)
        bound = self._bound.get(atoms[0]) if atoms else None
        if not isinstance(bound, Concat):
            return [Piece(atoms)]
        out: list[Piece] = []
        for i, segment in enumerate(bound.segments):
            step = ((atoms[0], i),)
            for piece in self.pieces(segment + self.restrict(atoms[1:], step)):
                out.append(Piece(piece.expr, step + piece.path))
        return out

    def restrict(self, expr: Expr, path: tuple[tuple[int, int], ...]) -> Expr:
        """The expression where the concatenations of ``path`` are in the given segments."""
        for key, segment in path:
            key, out = self.root(key), []
            if not self._tables.get(key):
                continue
            for atom in self.expand(expr):
                bound = self._bound.get(atom)
                if isinstance(bound, Table) and self.root(bound.key) == key:
                    out += bound.entries[segment]
                elif isinstance(bound, Table) and self._goes_by(atom, key):
                    out += self.table(
                        bound.key, [self.restrict(e, ((key, segment),)) for e in bound.entries]
                    )
                elif (
                    isinstance(bound, Concat)
                    and not self._tables.get(atom)
                    and self._goes_by(atom, key)
                ):
                    out += self.concat(self.restrict(s, ((key, segment),)) for s in bound.segments)
                else:
                    out.append(atom)
            expr = tuple(out)
        return expr

    def _goes_by(self, atom: int, key: int) -> bool:
        """Whether an atom is or has inside a table that the key selects from."""
        return any(self.root(self._bound[t].key) == key for t in self.tables_within(atom))

    def tables_within(self, atom: int) -> Iterator[int]:
        """All tables that an atom is made of, at any depth, itself first."""
        bound = self._bound.get(atom)
        if isinstance(bound, Table):
            yield atom
        parts = (
            bound.segments
            if isinstance(bound, Concat)
            else bound.entries
            if isinstance(bound, Table)
            else ()
        )
        for part in parts:
            for inner in self.expand(part):
                yield from self.tables_within(inner)

    def become(self, root: int, expr: Expr) -> None:
        """A root is this product from now on; whatever may depend on it may depend on the
        factors."""
        self._bound[root] = Product(expr)
        if held := self._dependents.get(root):
            for atom in self.expand(expr):
                self._dependents.setdefault(atom, set()).update(held)

    def renewed(self, expr: Expr) -> Expr:
        """The expression with fresh wild leaves: each use of a uniform axis may meet something
        else."""
        atoms = self.expand(expr)
        if not any(self.has_wild(a) for a in atoms):
            return atoms
        out: list[int] = []
        for atom in atoms:
            bound = self._bound.get(atom)
            if atom in self._wild:
                out += self.new(self._size[atom], wild=True)
            elif isinstance(bound, Concat) and self.has_wild(atom) and not self._tables.get(atom):
                out += self.concat(map(self.renewed, bound.segments))
            else:
                out.append(atom)
        return tuple(out)

    def has_wild(self, atom: int) -> bool:
        bound = self._bound.get(atom)
        if isinstance(bound, Concat):
            return any(self.has_wild(a) for s in bound.segments for a in self.expand(s))
        return atom in self._wild

    # ---------------------------------------------------------------- fixing

    def fix(self, expr: Expr, reason: str) -> None:
        """Nothing may move along this axis. The first reason is kept: it is the cause of the later
        ones."""
        for root in self.unbound(expr):
            if root not in self._reason:
                self._reason[root] = reason
                self._wild.discard(root)
                self._keys[root] = [frozenset()]

    def inert(self, expr: Expr) -> str | None:
        """The reason if the whole expression is fixed and nobody needs to tell its items apart;
        else ``None``."""
        why = ""
        for atom in self.expand(expr):
            bound = self._bound.get(atom)
            if isinstance(bound, Table) or (
                isinstance(bound, Concat) and not self._tables.get(atom)
            ):
                inner = [
                    self.inert(e)
                    for e in (bound.segments if isinstance(bound, Concat) else bound.entries)
                ]
                if None in inner:
                    return None
                why = next(filter(None, inner), why)
            elif atom not in self._reason or atom in self._anchors or self.dependents(atom):
                return None
            else:
                why = self._reason[atom]
        return why

    def anchor(self, expr: Expr) -> None:
        """Keep the identity of an axis although it is fixed."""
        self._anchors.update(self.unbound(expr))

    # ---------------------------------------------------------------- keys

    def keys(self, leaf: int) -> frozenset[int]:
        """What the permutation of an unbound leaf may depend on, in unbound leaves."""
        bounds = self._keys.get(leaf)
        if not bounds or (len(bounds) == 1 and not bounds[0]):
            return frozenset()
        return frozenset.intersection(*(frozenset(self._leaves_of_keys(b)) for b in bounds))

    def _leaves_of_keys(self, keys: Iterable[int]) -> Iterable[int]:
        """Keys in unbound leaves: of a product all factors. One that was cut has turned its
        dependents into tables."""
        for key in keys:
            for atom in self.expand((key,)):
                if atom not in self._bound:
                    yield atom

    def set_keys(self, leaf: int, keys: Iterable[int]) -> None:
        self._keys[leaf] = [frozenset(keys)]

    def bound_keys(self, leaf: int, bounds: Iterable[frozenset[int]]) -> None:
        """Add upper bounds for the keys of a leaf."""
        for bound in bounds:
            self._keys.setdefault(leaf, []).append(bound)
            for key in bound:
                self._dependents.setdefault(self.root(key), set()).add(leaf)

    def dependents(self, leaf: int) -> list[int]:
        """Unbound leaves that have this one among their keys."""
        held = self._dependents.get(leaf)
        if not held:
            return []
        alive = {d for d in map(self.root, held) if d not in self._bound}
        self._dependents[leaf] = alive
        return sorted(d for d in alive if leaf in self.keys(d))
