"""The algebra on the store: two axes list the same items, an axis is cut, a stretch of a tensor is
taken."""

from collections.abc import Iterable, Sequence
from math import gcd

from ._concats import Concats
from ._store import Concat, Expr, Piece, Table


class Leaves(Concats):
    """Equations between axis expressions, solved as they come; what cannot be reconciled is
    fixed."""

    def __init__(self) -> None:
        super().__init__()
        self._touched: set[int] = set()  # leaves whose keys have several bounds: see settle()

    # ---------------------------------------------------------------- equations

    def equate(self, left: Expr, right: Expr, reason: str) -> None:
        """Both axes list the same items in the same order.

        Walks the two products from their slowest factors, splitting the larger factor where the
        sizes divide and cutting what meets a concatenation. Where the factors have nothing in
        common (``(3, 4)`` against ``(2, 6)``) both are cut at all boundaries of either up to the
        next common one: ``4 | 2 | 2 | 4``.

        Raises:
            ValueError: the axes have different sizes: a rule is wrong.
        """
        if self.size(left) != self.size(right):
            raise ValueError(
                f"axes of sizes {self.size(left)} and {self.size(right)} equated by {reason}"
            )
        a, b = list(reversed(self.expand(left))), list(reversed(self.expand(right)))
        if a == b:
            return
        if any(atom in self._bound for atom in (*a, *b)):
            for one, other in ((a, b), (b, a)):  # how fixed axes are put together matters to nobody
                why = self.inert(tuple(one))
                if why is not None:
                    self.fix(tuple(other), why or reason)
                    return
        while a and b:
            x, y = a.pop(), b.pop()
            more_x, more_y = self.expand((x,)), self.expand((y,))
            if more_x != (x,) or more_y != (y,):  # bound by an earlier step of this very walk
                a.extend(reversed(more_x))
                b.extend(reversed(more_y))
            elif x != y:
                self._meet(x, y, a, b, reason)

    def _meet(self, x: int, y: int, a: list[int], b: list[int], reason: str) -> None:
        """Reconcile the first factors of two products; ``a`` and ``b`` hold what follows, last
        factor first."""
        bx, by = self._bound.get(x), self._bound.get(y)
        m, n = self._size[x], self._size[y]
        if isinstance(bx, Table) or isinstance(by, Table):
            self._meet_table(x, y, a, b, reason)
        elif isinstance(bx, Concat):
            b.append(y)
            self._meet_concat(x, b, a, reason)
        elif isinstance(by, Concat):
            a.append(x)
            self._meet_concat(y, a, b, reason)
        elif m == n:
            self._union(x, y)
        elif (common := gcd(m, n)) > 1:
            a.extend(reversed(self.split(x, common, reason)))
            b.extend(reversed(self.split(y, common, reason)))
        else:
            self.refine_both(*self._stretch_to_boundary([x], [y], a, b), reason)

    # ---------------------------------------------------------------- tables

    def _meet_table(self, x: int, y: int, a: list[int], b: list[int], reason: str) -> None:
        """Reconcile a table with what the other product begins with; see :meth:`_meet`."""
        bx, by = self._bound.get(x), self._bound.get(y)
        m, n = self._size[x], self._size[y]
        tables = [t for t in (x, y) if isinstance(self._bound.get(t), Table)]
        plain = next((leaf for leaf in (x, y) if leaf not in self._bound), None)
        if m == n and len(tables) == 2 and self.root(bx.key) == self.root(by.key):
            for left, right in zip(bx.entries, by.entries, strict=True):
                self.equate(left, right, reason)
        elif self._meet_key_first(x, y, a, b, reason) or self._meet_key_first(y, x, b, a, reason):
            pass
        elif isinstance(bx, Concat) or isinstance(by, Concat):
            self.refine_both(*self._stretch_to_boundary([x], [y], a, b), reason)
        elif m == n:
            if plain is not None and self.is_open(plain):
                self.become(
                    plain, (y if plain == x else x,)
                )  # nothing is known that speaks against it
                return
            for table in tables:
                self.collapse(table, reason)
            a.append(x)
            b.append(y)
        elif (common := gcd(m, n)) > 1:
            for node, rest in ((x, a), (y, b)):
                cut = self.split if node == plain else self.split_table
                rest.extend(
                    reversed(cut(node, common, reason) if self._size[node] > common else (node,))
                )
        else:
            self.refine_both(*self._stretch_to_boundary([x], [y], a, b), reason)

    def _meet_key_first(
        self, table: int, other: int, own: list[int], rest: list[int], reason: str
    ) -> bool:
        """A table whose key follows in the same product: equate the key first, so that tables meet
        tables.

        ``(t, k)``, as a channel shuffle makes it of a concatenation, against a leaf of 12: it
        becomes ``(6, 2)``, the 2 is cut as ``k`` is, by which the 6 becomes a table with the same
        key.

        Returns:
            Whether this was possible: the other product has, or can have, boundaries before and
            behind the key.
        """
        bound = self._bound.get(table)
        if not isinstance(bound, Table):
            return False
        ours, theirs = self.expand((table, *reversed(own))), self.expand((other, *reversed(rest)))
        key = self.root(bound.key)
        if key not in ours:
            return False
        at = ours.index(key)
        behind = self.size(ours[at + 1 :])
        if not all(self.divisible(theirs, n) for n in (behind, behind * self._size[key])):
            return False
        before, middle = self.divided(theirs, behind * self._size[key], reason)
        middle, after = self.divided(middle, behind, reason)
        self.equate(middle, (key,), reason)
        ends = [(before, ours[:at]), (after, ours[at + 1 :])]
        if not self._keyed(ours[at + 1 :], ours[:at]):
            ends.reverse()
        for left, right in ends:
            self.equate(left, right, reason)
        own.clear()
        rest.clear()
        return True

    def _keyed(self, atoms: Iterable[int], keys: Iterable[int]) -> bool:
        """Whether there is a table among some atoms whose key is among others."""
        bounds = (self._bound.get(atom) for atom in atoms)
        roots = {self.root(bound.key) for bound in bounds if isinstance(bound, Table)}
        return not roots.isdisjoint(keys)

    def goes_by_another(self, expr: Expr) -> bool:
        """Whether a factor is a table whose key is no factor beside it: it stands on another
        axis."""
        atoms = self.expand(expr)
        bounds = (self._bound.get(atom) for atom in atoms)
        return any(
            isinstance(bound, Table) and self.root(bound.key) not in atoms for bound in bounds
        )

    def settle_tables(self, expr: Expr, reason: str) -> None:
        """Tables whose entries are all fixed, and that nobody tells apart, are none any more."""
        for atom in self.expand(expr):
            bound = self._bound.get(atom)
            if isinstance(bound, Table) and self.inert((atom,)) is not None:
                self.collapse(atom, reason)

    def split_table(self, root: int, first: int, reason: str) -> Expr:
        """A table as the product of two: all its entries are split alike."""
        table = self._bound[root]
        slow, fast = [], []
        for entry in table.entries:
            p, q = self.new(first), self.new(self._size[root] // first)
            self.equate(entry, p + q, reason)
            slow.append(p)
            fast.append(q)
        self.become(root, self.table(table.key, slow) + self.table(table.key, fast))
        return self.expand((root,))

    def collapse(self, node: int, reason: str) -> None:
        """A table that nothing selects from has the same items in all its entries."""
        table = self._bound[node]
        for entry in table.entries[1:]:
            self.equate(table.entries[0], entry, reason)
        self.become(node, table.entries[0])

    def _union(self, x: int, y: int) -> None:
        if x in self._wild:
            x, y = y, x  # a wild leaf becomes what it meets
        self._parent[y] = x
        if y in self._reason:
            self._reason.setdefault(x, self._reason[y])
        if y in self._anchors:
            self._anchors.add(x)
        if y in self._made_by:
            self._made_by.setdefault(x, self._made_by[y])
        self._dependents.setdefault(x, set()).update(self._dependents.pop(y, ()))
        bounds = self._keys.pop(y, ())
        if bounds:
            self._keys.setdefault(x, []).extend(bounds)
            for bound in bounds:
                for key in bound:
                    self._dependents.setdefault(self.root(key), set()).add(x)
            self._touched.add(x)
        if x in self._reason:
            self._keys[x] = [frozenset()]

    def settle(self) -> None:
        """The keys of merged leaves are those that both had: taken once all merges of an operation
        are known."""
        for leaf in self._touched:
            leaf = self.root(leaf)
            if leaf in self._keys and leaf not in self._bound:
                self._keys[leaf] = [self.keys(leaf)]
        self._touched.clear()

    # ---------------------------------------------------------------- partitions that meet

    def _stretch_to_boundary(
        self, left: list[int], right: list[int], a: list[int], b: list[int]
    ) -> tuple[list[int], list[int]]:
        """Take as many factors as make up a common stretch, with the keys of the tables among
        them."""
        a[:], b[:] = (
            reversed(self.expand(tuple(reversed(a)))),
            reversed(self.expand(tuple(reversed(b)))),
        )
        while True:
            m, n = self.size(tuple(left)), self.size(tuple(right))
            if m < n or (m == n and self._keyed(left, a)):
                left.append(a.pop())
            elif n < m or self._keyed(right, b):
                right.append(b.pop())
            else:
                return left, right

    # ---------------------------------------------------------------- concatenations

    def _meet_concat(self, node: int, other: list[int], rest: list[int], reason: str) -> None:
        """A concatenation against as many factors of the other product as make up its size."""
        size, total, prefix = self._size[node], 1, []
        while total < size:
            y = other.pop()
            n = self._size[y]
            want = size // total
            if size % (total * n) == 0:
                prefix.append(y)
                total *= n
                continue
            bound = self._bound.get(y)
            if size % total == 0 and n % want == 0 and not isinstance(bound, Table):
                cut = self.split if bound is None else self._split_concat
                other.extend(reversed(cut(y, want, reason)))
                continue
            self.refine_both(*self._stretch_to_boundary([node], [*prefix, y], rest, other), reason)
            return
        if self._keyed(prefix, other):
            self.refine_both(*self._stretch_to_boundary([node], prefix, rest, other), reason)
            return
        self.equate_pieces((node,), tuple(prefix), reason)
        if self._tables.get(node):
            self.rekey(node, tuple(prefix))

    def _split_concat(self, node: int, first: int, reason: str) -> Expr:
        """A concatenation as a product: every segment is cut alike."""
        p = self.new(first, ())
        q = self.new(self._size[node] // first, p)
        self.equate_pieces((node,), p + q, reason)
        self.rekey(node, p + q)
        return p + q

    # ---------------------------------------------------------------- stretches of tensors

    def take(
        self, axes: Sequence[Expr], axis: int, start: int, stop: int, step: int, reason: str
    ) -> tuple[Expr, ...]:
        """Axes of ``x[..., start:stop:step, ...]``: the axis is cut, and axes that depend on it
        follow.

        Args:
            axes: of the tensor.
            axis: which one is cut.
            start, stop, step: as in a slice, non-negative and within the axis.
        """
        expr, n = axes[axis], self.size(axes[axis])
        count = len(range(start, stop, step))
        why = self.inert(expr)
        if why is not None or count == 0:
            taken = self.new(count)
            self.fix(taken, why or reason)
            return (*axes[:axis], taken, *axes[axis + 1 :])
        if step == 1 or count == 1:
            return self._stretch(axes, axis, start, start + count)
        if n % step == 0 and start < step and count == n // step:
            slow, fast = self.new(count), self.new(step)
            self.equate(expr, slow + fast, reason)
            whole = (*axes[:axis], slow, *axes[axis + 1 :], fast)
            return self._stretch(whole, len(axes), start, start + 1)[:-1]
        self.fix(expr, reason)
        taken = self.new(count)
        self.fix(taken, reason)
        return (*axes[:axis], taken, *axes[axis + 1 :])

    def _stretch(self, axes: Sequence[Expr], axis: int, start: int, stop: int) -> tuple[Expr, ...]:
        pieces = self.pieces(axes[axis])
        for at in (start, stop):
            position = 0
            for i, piece in enumerate(pieces):
                size = self.size(piece.expr)
                if position < at < position + size:
                    cut = self.cut(piece.expr, at - position)
                    pieces[i : i + 1] = [Piece(p.expr, piece.path + p.path) for p in cut]
                    break
                position += size
        position, chosen = 0, []
        for piece in pieces:
            if start <= position < stop:
                chosen.append(piece)
            position += self.size(piece.expr)
        taken = self.concat(p.expr for p in chosen)
        out = []
        for i, other in enumerate(axes):
            if i == axis:
                out.append(taken)
                continue
            versions = [self.restrict(other, p.path) for p in chosen]
            if len(set(map(self.expand, versions))) == 1:
                out.append(versions[0])
            else:
                atoms = self.expand(other)
                columns = [[self.restrict((atom,), p.path) for p in chosen] for atom in atoms]
                out.append(
                    tuple(leaf for entries in columns for leaf in self.table(taken[0], entries))
                )
        return tuple(out)
