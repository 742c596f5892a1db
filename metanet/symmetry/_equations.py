"""Equations between axis expressions, solved as they come; what cannot be reconciled is fixed."""

from collections.abc import Sequence

from ._bindings import Expr, Stretch
from ._concats import Concats
from ._cuts import Cuts
from ._leaves import Leaves
from ._meeting import Meeting, Side


class Equations:
    """The algebra on leaves: two axes list the same items, a stretch of a tensor is taken.

    ::

        equations = Equations()
        rows, heads, dims = map(equations.leaves.new, (24, 3, 8))
        equations.equate(rows, heads + dims, "aten.view")    # rows is (heads, dims) from now on

    Attributes:
        leaves: what is known by now.
    """

    def __init__(self) -> None:
        self.leaves = Leaves()
        self._cuts = Cuts(self.leaves, self.equate)
        self._concats = Concats(self.leaves, self._cuts, self.equate)
        self._meeting = Meeting(self.leaves, self._cuts, self._concats, self.equate)

    # ---------------------------------------------------------------- equations

    def equate(self, left: Expr, right: Expr, reason: str) -> None:
        """Both axes list the same items in the same order.

        Walks the two products from their slowest factors, splitting the larger factor where the
        sizes divide and cutting what meets a concatenation; see ``_meeting.py``.

        Raises:
            ValueError: the axes have different sizes: a rule is wrong.
        """
        leaves = self.leaves
        if leaves.size(left) != leaves.size(right):
            sizes = f"{leaves.size(left)} and {leaves.size(right)}"
            raise ValueError(f"axes of sizes {sizes} equated by {reason}")
        ours, theirs = leaves.expand(left), leaves.expand(right)
        if ours == theirs or self._is_of_no_matter(ours, theirs, reason):
            return
        a, b = list(reversed(ours)), list(reversed(theirs))
        while a and b:
            x, y = a.pop(), b.pop()
            now_x, now_y = leaves.expand((x,)), leaves.expand((y,))
            if now_x != (x,) or now_y != (y,):  # bound by an earlier step of this very walk
                a.extend(reversed(now_x))
                b.extend(reversed(now_y))
            elif x != y:
                self._meeting.meet(Side(x, a), Side(y, b), reason)

    def _is_of_no_matter(self, ours: Expr, theirs: Expr, reason: str) -> bool:
        """How fixed axes are put together matters to nobody: then the other is fixed as a whole."""
        leaves = self.leaves
        if leaves.bound.keys().isdisjoint((*ours, *theirs)):
            return False
        for one, other in ((ours, theirs), (theirs, ours)):
            why = leaves.inert(one[::-1])  # its first factor has the say
            if why is not None:
                leaves.fix(other, why or reason)
                return True
        return False

    def collapse(self, table: int, reason: str) -> None:
        """A table that nothing selects from has the same items in all its entries."""
        self._cuts.collapse(table, reason)

    def goes_by_another(self, expr: Expr) -> bool:
        """Whether a factor is a table whose key is no factor beside it: it stands on another
        axis."""
        atoms = self.leaves.expand(expr)
        keys = {self.leaves.key(atom) for atom in atoms} - {None}
        return not keys.issubset(atoms)

    def settle_tables(self, expr: Expr, reason: str) -> None:
        """Tables whose entries are all fixed, and that nobody tells apart, are none any more."""
        leaves = self.leaves
        for atom in leaves.expand(expr):
            if leaves.key(atom) is not None and leaves.inert((atom,)) is not None:
                self.collapse(atom, reason)

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
        leaves, expr = self.leaves, axes[axis]
        count = len(range(start, stop, step))
        why = leaves.inert(expr)
        if why is not None or count == 0:
            return self._fixed(axes, axis, count, why or reason)
        if step == 1 or count == 1:
            return self._stretch(axes, axis, start, start + count)
        if leaves.size(expr) == count * step and start < step:  # the same item of every block
            slow, fast = leaves.new(count), leaves.new(step)
            self.equate(expr, slow + fast, reason)
            blocks = (*axes[:axis], slow, *axes[axis + 1 :], fast)
            return self._stretch(blocks, len(axes), start, start + 1)[:-1]
        leaves.fix(expr, reason)
        return self._fixed(axes, axis, count, reason)

    def _fixed(self, axes: Sequence[Expr], axis: int, size: int, why: str) -> tuple[Expr, ...]:
        """The axes with a new one that is fixed in place of one of them."""
        new = self.leaves.new(size)
        self.leaves.fix(new, why)
        return (*axes[:axis], new, *axes[axis + 1 :])

    def _stretch(self, axes: Sequence[Expr], axis: int, start: int, stop: int) -> tuple[Expr, ...]:
        """The axes within a stretch of one of them."""
        leaves = self.leaves
        stretches = leaves.stretches(axes[axis])
        for at in (start, stop):
            stretches = self._cuts.cut_within(stretches, at)
        position = 0
        inside: list[Stretch] = []
        for stretch in stretches:
            if start <= position < stop:
                inside.append(stretch)
            position += leaves.size(stretch.expr)
        taken = leaves.concat(s.expr for s in inside)
        before = [self._beside(other, taken, inside) for other in axes[:axis]]
        after = [self._beside(other, taken, inside) for other in axes[axis + 1 :]]
        return (*before, taken, *after)

    def _beside(self, other: Expr, taken: Expr, inside: Sequence[Stretch]) -> Expr:
        """Another axis of the tensor, where the taken one is within some stretches: it may be
        something else in each of them."""
        leaves = self.leaves
        versions = [leaves.restrict(other, stretch.path) for stretch in inside]
        if len(set(map(leaves.expand, versions))) == 1:
            return versions[0]
        # dims, which is k?(a / b / c), beside the segments 0 and 1 of k: taken?(a / b)
        beside: Expr = ()
        for atom in leaves.expand(other):
            entries = [leaves.restrict((atom,), stretch.path) for stretch in inside]
            beside += leaves.table(taken[0], entries)
        return beside
