"""The algebra on the store: two axes list the same items, an axis is cut, a stretch of a tensor is taken."""

from collections.abc import Sequence
from itertools import accumulate
from math import gcd

from ._store import Concat, Expr, Piece, Product, Store, Table


class Leaves(Store):
    """Equations between axis expressions, solved as they come; what cannot be reconciled is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self._touched: set[int] = set()  # leaves whose keys have several bounds: see settle()

    # ---------------------------------------------------------------- equations

    def equate(self, left: Expr, right: Expr, reason: str) -> None:
        """Both axes list the same items in the same order.

        Walks the two products from their slowest factors, splitting the larger factor where the sizes divide and
        cutting what meets a concatenation. Where the factors have nothing in common (``(4, 6)`` against ``(6, 4)``,
        less their common divisors) the stretch up to the next common boundary is fixed.

        Raises:
            ValueError: the axes have different sizes: a rule is wrong.
        """
        if self.size(left) != self.size(right):
            raise ValueError(f"axes of sizes {self.size(left)} and {self.size(right)} equated by {reason}")
        a, b = list(reversed(self.expand(left))), list(reversed(self.expand(right)))
        if a == b:
            return
        if any(atom in self._bound for atom in (*a, *b)):
            for one, other in ((a, b), (b, a)):  # how fixed axes are put together matters to nobody
                why = self.inert(tuple(one))
                if why is not None:
                    self.fix(tuple(other), why)
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
        """Reconcile the first factors of two products; ``a`` and ``b`` hold what follows, last factor first."""
        bx, by = self._bound.get(x), self._bound.get(y)
        m, n = self._size[x], self._size[y]
        if isinstance(bx, Table) or isinstance(by, Table):
            same = isinstance(bx, Table) and isinstance(by, Table) and self.root(bx.key) == self.root(by.key)
            plain = next((leaf for leaf in (x, y) if leaf not in self._bound), None)
            if same and m == n:
                for left, right in zip(bx.entries, by.entries, strict=True):
                    self.equate(left, right, reason)
            elif m == n and plain is not None and self._is_open(plain):
                self._bound[plain] = Product((y if plain == x else x,))  # nothing is known of it that speaks against
            else:
                for node, bound in ((x, bx), (y, by)):
                    if isinstance(bound, Table):
                        self.collapse(node, reason)
                a.append(x)
                b.append(y)
        elif isinstance(bx, Concat):
            b.append(y)
            self._meet_concat(x, b, a, reason)
        elif isinstance(by, Concat):
            a.append(x)
            self._meet_concat(y, a, b, reason)
        elif m == n:
            self._union(x, y)
        elif (common := gcd(m, n)) > 1:
            a.extend(reversed(self._split(x, common)))
            b.extend(reversed(self._split(y, common)))
        else:
            self._fix_to_boundary(x, y, a, b, reason)

    def _is_open(self, leaf: int) -> bool:
        """Whether nothing is known yet of an unbound leaf that limits what it may depend on."""
        known = leaf in self._bound or leaf in self._keys or leaf in self._reason or leaf in self._wild
        return not known and not self.dependents(leaf)

    def collapse(self, node: int, reason: str) -> None:
        """A table that nothing selects from has the same items in all its entries."""
        table = self._bound[node]
        for entry in table.entries[1:]:
            self.equate(table.entries[0], entry, reason)
        self._bound[node] = Product(table.entries[0])

    def _split(self, root: int, first: int) -> Expr:
        """A leaf as the product of ``first`` and the rest, each of which may depend on the other."""
        if first == self._size[root]:
            return (root,)
        p, q = self.new(first), self.new(self._size[root] // first)
        self._bound[root] = Product(p + q)
        self._inherit(root, p + q)
        for own, other in ((p[0], q[0]), (q[0], p[0])):
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
            if root in self._dependents:
                self._dependents.setdefault(part, set()).update(self._dependents[root])

    def _union(self, x: int, y: int) -> None:
        if x in self._wild:
            x, y = y, x  # a wild leaf becomes what it meets
        self._parent[y] = x
        if y in self._reason:
            self._reason.setdefault(x, self._reason[y])
        if y in self._anchors:
            self._anchors.add(x)
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
        """The keys of merged leaves are those that both had: taken once all merges of an operation are known."""
        for leaf in self._touched:
            leaf = self.root(leaf)
            if leaf in self._keys and leaf not in self._bound:
                self._keys[leaf] = [self.keys(leaf)]
        self._touched.clear()

    def _fix_to_boundary(self, x: int, y: int, a: list[int], b: list[int], reason: str) -> None:
        """Factors without a common divisor: find the next common boundary and fix what lies before it."""
        left, right, m, n = [x], [y], self._size[x], self._size[y]
        while m != n:
            if m < n:
                left.append(a.pop())
                m *= self._size[left[-1]]
            else:
                right.append(b.pop())
                n *= self._size[right[-1]]
        while True:  # what both products end with may still move
            p, q = left[-1], right[-1]
            if p in self._bound or q in self._bound:
                break
            common = gcd(self._size[p], self._size[q])
            if common == 1:
                break
            for side, leaf in ((left, p), (right, q)):
                if self._size[leaf] > common:
                    side[-1:] = self._split(leaf, self._size[leaf] // common)
            self._union(left.pop(), right.pop())
        for leaf in (*left, *right):
            self.fix((leaf,), f"{reason}: its factors do not divide each other")

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
            if isinstance(bound, Table):
                self.collapse(y, reason)
                other.extend(reversed(self.expand((y,))))
            elif size % total == 0 and n % want == 0 and bound is None:
                other.extend(reversed(self._split(y, want)))
            elif size % total == 0 and n % want == 0:
                other.extend(reversed(self._split_concat(y, want, reason)))
            else:  # no common factors: everything up to the next common boundary is fixed
                self._fix_stretch([node], [*prefix, y], rest, other, reason)
                return
        self._equate_pieces((node,), tuple(prefix), reason)

    def _fix_stretch(self, left: list[int], right: list[int], a: list[int], b: list[int], reason: str) -> None:
        while self.size(tuple(left)) != self.size(tuple(right)):
            if self.size(tuple(left)) < self.size(tuple(right)):
                left.append(a.pop())
            else:
                right.append(b.pop())
        self.fix((*left, *right), f"{reason}: its parts do not line up")

    def _split_concat(self, node: int, first: int, reason: str) -> Expr:
        """A concatenation as a product: every segment is cut alike."""
        p = self.new(first, ())
        q = self.new(self._size[node] // first, p)
        self._equate_pieces((node,), p + q, reason)
        if not self._tables.get(node):
            self._bound[node] = Product(p + q)
        return p + q

    def _equate_pieces(self, left: Expr, right: Expr, reason: str) -> None:
        """Two sequences of stretches: cut both at all boundaries, then stretch by stretch."""
        a, b = self.expand(left), self.expand(right)
        if len(a) == 1 and len(b) == 1 and a != b:
            x, y = a[0], b[0]
            for node, other in ((x, y), (y, x)):
                if node not in self._bound:
                    self._cut_like(node, other)
            self._refine(x)
            self._refine(y)
            self._align(x, y, reason)
            self._merge_concats(x, y, reason)
            return
        i, j = self.pieces(left), self.pieces(right)
        while i and j:
            m, n = self.size(i[0].expr), self.size(j[0].expr)
            if m > n:
                i[:1] = self._cut(i[0].expr, n, reason)
            elif n > m:
                j[:1] = self._cut(j[0].expr, m, reason)
            else:
                self.equate(i.pop(0).expr, j.pop(0).expr, reason)

    def _cut_like(self, root: int, other: int) -> None:
        """Cut a leaf where another concatenation of the same size has its boundaries."""
        sizes = [self.size(s) for s in self._bound[other].segments]
        self._cut_leaf(root, sizes)

    def _cut_leaf(self, root: int, sizes: Sequence[int], beside: Sequence[int] = ()) -> None:
        """A leaf becomes a concatenation of fresh leaves; whatever may depend on it becomes a table.

        Args:
            beside: factors of the same product: those of which nothing is known yet may depend on it too.
        """
        dependents = [*self.dependents(root), *(a for a in dict.fromkeys(beside) if a != root and self._is_open(a))]
        segments = tuple(self.new(n) for n in sizes)
        made: dict[int, tuple[Expr, ...]] = {d: tuple(self.new(self._size[d]) for _ in sizes) for d in dependents}

        def inside(bound: frozenset[int], i: int) -> frozenset[int]:
            """The same keys where the root is in its segment ``i``."""
            own: set[int] = set()
            for key in map(self.root, bound):
                own.update(segments[i] if key == root else made[key][i] if key in made else (key,))
            return frozenset(own)

        bounds = {d: list(self._keys.get(d, ())) for d in (root, *dependents)}
        for d, entries in ((root, segments), *made.items()):
            for i, entry in enumerate(entries):
                self._inherit(d, entry)
                for leaf in entry:
                    self.bound_keys(leaf, [inside(bound, i) for bound in bounds[d]])
        self._bound[root] = Concat(segments)
        for d, entries in made.items():
            self._bind_table(d, root, entries)

    def _cut(self, expr: Expr, at: int, reason: str) -> list[Piece]:
        """Cut one stretch (not a concatenation) after ``at`` items; returns all its stretches now."""
        atoms = self.expand(expr)
        first, rest = atoms[0], atoms[1:]
        bound = self._bound.get(first)
        if isinstance(bound, Table):
            self.collapse(first, reason)
            return self._cut(expr, at, reason)
        if isinstance(bound, Concat):
            out = self.pieces(expr)
        else:
            inner = self.size(rest)
            whole, part = divmod(at, inner)
            n = self._size[first]
            bounds = [0, whole, whole + 1, n] if part else [0, whole, n]
            sizes = [b - a for a, b in zip(bounds, bounds[1:], strict=False) if b > a]
            if len(sizes) > 1:
                self._cut_leaf(first, sizes, rest)
                out = self.pieces(expr)
            else:  # a single item in front: the cut goes through what follows
                out = [Piece(atoms)]
        start = 0
        for i, piece in enumerate(out):
            size = self.size(piece.expr)
            if start < at < start + size:
                out[i : i + 1] = [Piece(p.expr, piece.path + p.path) for p in self._cut(piece.expr, at - start, reason)]
                break
            start += size
        return out

    # ---------------------------------------------------------------- stretches of tensors

    def take(self, axes: Sequence[Expr], axis: int, start: int, stop: int, step: int, reason: str) -> tuple[Expr, ...]:
        """Axes of ``x[..., start:stop:step, ...]``: the axis is cut, and axes that depend on it follow.

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
            return self._stretch(axes, axis, start, start + count, reason)
        if n % step == 0 and start < step and count == n // step:
            slow, fast = self.new(count), self.new(step)
            self.equate(expr, slow + fast, reason)
            whole = (*axes[:axis], slow, *axes[axis + 1 :], fast)
            return self._stretch(whole, len(axes), start, start + 1, reason)[:-1]
        self.fix(expr, reason)
        taken = self.new(count)
        self.fix(taken, reason)
        return (*axes[:axis], taken, *axes[axis + 1 :])

    def _stretch(self, axes: Sequence[Expr], axis: int, start: int, stop: int, reason: str) -> tuple[Expr, ...]:
        pieces = self.pieces(axes[axis])
        for at in (start, stop):
            position = 0
            for i, piece in enumerate(pieces):
                size = self.size(piece.expr)
                if position < at < position + size:
                    cut = self._cut(piece.expr, at - position, reason)
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
                out.append(tuple(leaf for entries in columns for leaf in self.table(taken[0], entries)))
        return tuple(out)

    # ---------------------------------------------------------------- concatenations that meet

    def _refine(self, node: int) -> None:
        """Take segments that are concatenations themselves apart, with the entries of all tables."""
        bound = self._bound[node]
        split = [self.pieces(s) for s in bound.segments]
        if all(len(p) == 1 for p in split):
            return
        self._bound[node] = Concat(tuple(p.expr for ps in split for p in ps))
        for t in self._tables.get(node, ()):
            table = self._bound.get(t)
            if isinstance(table, Table):
                entries = [self.restrict(e, p.path) for e, ps in zip(table.entries, split, strict=True) for p in ps]
                self._bound[t] = Table(node, tuple(entries))

    def _align(self, x: int, y: int, reason: str) -> None:
        """Cut the segments of two concatenations of the same size at each other's boundaries."""
        while True:  # cutting through a product may make more boundaries than were asked for
            ends = [set(accumulate(self.size(s) for s in self._bound[n].segments)) for n in (x, y)]
            if ends[0] == ends[1]:
                return
            for node, missing in ((x, ends[1] - ends[0]), (y, ends[0] - ends[1])):
                for at in sorted(missing):
                    start = 0
                    for segment in self._bound[node].segments:
                        size = self.size(segment)
                        if start < at < start + size:
                            self._cut(segment, at - start, reason)
                            break
                        start += size
                    self._refine(node)

    def _merge_concats(self, x: int, y: int, reason: str) -> None:
        """Two concatenations with the same boundaries become one node, so that tables of either serve both."""
        left, right = self._bound[x].segments, self._bound[y].segments
        self._parent[y] = x
        del self._bound[y]
        self._tables.setdefault(x, []).extend(self._tables.pop(y, ()))
        for one, other in zip(left, right, strict=True):
            self.equate(one, other, reason)
