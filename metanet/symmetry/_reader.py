"""Solved expressions as axes of a spec."""

from collections.abc import Mapping, Sequence

from ._axes import Axis, Choice, Fixed, Leaf, axis_concat, axis_product
from ._bindings import Expr, Segments, Table
from ._leaves import Leaves


class Reader:
    """The axes of one tensor together: a choice goes by a concatenation of another axis.

    Args:
        leaves: solved.
        names: of groups.
    """

    def __init__(self, leaves: Leaves, names: Mapping[int, str]) -> None:
        self.leaves = leaves
        self.names = names
        self.concats: dict[int, str] = {}  # concatenations that some other axis goes by

    def axes(self, exprs: Sequence[Expr]) -> tuple[Axis, ...]:
        """Expressions as axes."""
        while True:  # a choice may come before the concatenation it goes by
            before = len(self.concats)
            axes = tuple(map(self._axis, exprs))
            if len(self.concats) == before:
                return axes

    def _axis(self, expr: Expr) -> Axis:
        atoms = self.leaves.expand(expr)
        parts: list[Axis] = []
        for i, atom in enumerate(atoms):
            bound = self.leaves.binding(atom)
            if isinstance(bound, Segments):
                behind = atoms[i + 1 :]
                inside = [
                    self.leaves.restrict(behind, ((atom, n),)) for n in range(len(bound.parts))
                ]
                if inside[0] != behind:  # what follows depends on the segment
                    segments = [s + b for s, b in zip(bound.parts, inside, strict=True)]
                    parts.append(self._concat(atom, bound, segments))
                    break
                parts.append(self._concat(atom, bound, bound.parts))
            elif isinstance(bound, Table):
                name = f"segment{len(self.concats) or ''}"
                name = self.concats.setdefault(self.leaves.root(bound.key), name)
                parts.append(Choice(name, tuple(map(self._axis, bound.parts))))
            else:
                parts.append(self._leaf(atom))
        return axis_product(parts)

    def _concat(self, atom: int, bound: Segments, segments: Sequence[Expr]) -> Axis:
        name = self.concats.get(atom, "")
        return axis_concat(list(map(self._axis, segments)), name, bound.why)

    def _leaf(self, atom: int) -> Axis:
        """An unbound leaf: items of a group, or fixed."""
        size, why = self.leaves.sizes[atom], self.leaves.reason(atom)
        if why is not None:
            return Fixed(size, why, self.names.get(atom, ""))
        if atom in self.names:
            return Leaf(self.names[atom], size)
        return Fixed(size, "no parameter moves with it")
