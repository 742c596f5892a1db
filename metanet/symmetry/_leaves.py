"""The algebra that derivation works in: leaves, joined by union-find, refined into products.

An *expression* is a row-major product, a flat tuple of leaves; an axis of size 1 is the empty product. Binding is
global: splitting a leaf splits it in every tensor that holds it.
"""

from math import prod

Expr = tuple[int, ...]


class Leaves:
    """A store of leaves. Each is free, fixed (with a reason), or bound to a product of other leaves."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._product: dict[int, Expr] = {}
        self._reason: dict[int, str] = {}

    def new(self, size: int) -> Expr:
        """A free axis of ``size`` items that nothing is known about yet."""
        if size == 1:
            return ()
        self._parent.append(len(self._parent))
        self._size.append(size)
        return (len(self._parent) - 1,)

    def root(self, leaf: int) -> int:
        while self._parent[leaf] != leaf:
            self._parent[leaf] = self._parent[self._parent[leaf]]
            leaf = self._parent[leaf]
        return leaf

    def size(self, expr: Expr) -> int:
        return prod(self._size[self.root(leaf)] for leaf in expr)

    def expand(self, expr: Expr) -> Expr:
        """The expression in roots that are free or fixed, products multiplied out."""
        out: list[int] = []
        stack = list(reversed(expr))
        while stack:
            root = self.root(stack.pop())
            if root in self._product:
                stack.extend(reversed(self._product[root]))
            else:
                out.append(root)
        return tuple(out)

    def reason(self, root: int) -> str | None:
        """Why a root is fixed; ``None`` if it is free."""
        return self._reason.get(root)

    def fix(self, expr: Expr, reason: str) -> None:
        """Nothing may move along this axis. The first reason is kept: it is the cause of the later ones."""
        for root in self.expand(expr):
            self._reason.setdefault(root, reason)

    def equate(self, left: Expr, right: Expr, reason: str) -> None:
        """Both axes list the same items in the same order.

        Walks the two products from their slowest factors, splitting the larger factor where the sizes divide.
        Where they do not (``(4, 6)`` against ``(6, 4)``) the stretch up to the next common boundary is fixed.

        Raises:
            ValueError: the axes have different sizes: a rule is wrong.
        """
        if self.size(left) != self.size(right):
            raise ValueError(f"axes of sizes {self.size(left)} and {self.size(right)} equated by {reason}")
        a, b = list(reversed(self.expand(left))), list(reversed(self.expand(right)))
        while a and b:
            x, y = self.root(a.pop()), self.root(b.pop())
            if x in self._product or y in self._product:  # split by an earlier step of this very walk
                a.extend(reversed(self.expand((x,))))
                b.extend(reversed(self.expand((y,))))
                continue
            if x == y:
                continue
            m, n = self._size[x], self._size[y]
            if m == n:
                self._union(x, y)
            elif m % n == 0:
                a.append(self._split(x, n))
                self._union(self._product[x][0], y)
            elif n % m == 0:
                b.append(self._split(y, m))
                self._union(x, self._product[y][0])
            else:
                self._fix_to_boundary(a, b, x, y, reason)

    def _split(self, root: int, first: int) -> int:
        """Bind a root to a product of ``first`` and the rest; returns the rest."""
        parts = self.new(first) + self.new(self._size[root] // first)
        self._product[root] = parts
        if root in self._reason:
            self.fix(parts, self._reason[root])
        return parts[1]

    def _union(self, x: int, y: int) -> None:
        x, y = self.root(x), self.root(y)
        if x == y:
            return
        if y in self._reason and x not in self._reason:
            x, y = y, x
        self._parent[y] = x
        if y in self._reason:
            self._reason.setdefault(x, self._reason[y])

    def _fix_to_boundary(self, a: list[int], b: list[int], x: int, y: int, reason: str) -> None:
        m, n = self._size[x], self._size[y]
        touched = [x, y]
        while m != n:
            if m < n:
                touched.append(a.pop())
                m *= self.size((touched[-1],))
            else:
                touched.append(b.pop())
                n *= self.size((touched[-1],))
        for leaf in touched:
            self.fix((leaf,), f"{reason}: its factors do not divide each other")
