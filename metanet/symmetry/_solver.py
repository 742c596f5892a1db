"""What is known of a network while its recordings are followed, and what is left at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ._bindings import Expr, Table
from ._equations import Equations
from ._groups import leaves_of_axes
from ._operation import load_operations
from ._spaces import Spaces
from ._unknown import UnknownOps

UNREAD = "the example did not read it"
ALONE = "no floating-point tensor moves with it"


@dataclass
class Solver:
    """All equations of one or several recordings of one network, over shared parameters.

    Attributes:
        equations: between the axes of all values.
        parameters: axes of every parameter by its first name.
        integers: which of them hold integers or truth values.
        reads: expressions that some operation computed with, rather than only moved about.
        unknown: operations without a rule.
    """

    equations: Equations = field(default_factory=Equations)
    parameters: dict[str, tuple[Expr, ...]] = field(default_factory=dict)
    integers: set[str] = field(default_factory=set)
    reads: set[Expr] = field(default_factory=set)
    unknown: UnknownOps = field(default_factory=UnknownOps)

    def __post_init__(self) -> None:
        self.leaves = self.equations.leaves
        self.spaces = Spaces(self.equations)
        load_operations()

    def parameter(self, name: str, shape: tuple[int, ...]) -> tuple[Expr, ...]:
        """Axes of a parameter, the same in all recordings; each may depend on the others until an
        operation says no."""
        if name not in self.parameters:
            leaves = self.leaves
            axes = tuple(map(leaves.new, shape))
            everyone = frozenset(sum(axes, ()))
            for leaf in sum(axes, ()):
                leaves.bound_keys(leaf, [everyone - {leaf}])
            self.parameters[name] = axes
            self.spaces.seen.append(axes)
        return self.parameters[name]

    # ---------------------------------------------------------------- at the end

    def finish(self) -> None:
        """Take away the keys that some space does not support, and fix what the example never
        read."""
        self._settle()
        alive = self._alive()
        for axis in self._axes():
            if self._tie_unread(axis, alive):
                alive = self._alive()
        for leaf in list(leaves_of_axes(self.leaves, self._axes())):
            if leaf not in alive:
                self.leaves.fix((leaf,), UNREAD)
        self._fix_alone()
        self._settle()
        for axis in self._axes():
            self.equations.settle_tables(axis, UNREAD)

    def _settle(self) -> None:
        self.leaves.settle()
        self.spaces.settle()

    def _axes(self) -> Iterator[Expr]:
        """Of all parameters."""
        for axes in self.parameters.values():
            yield from axes

    def _alive(self) -> set[int]:
        """The leaves that some operation computed with."""
        return set(leaves_of_axes(self.leaves, self.reads))

    def _leaves_of(self, name: str) -> set[int]:
        return set(leaves_of_axes(self.leaves, self.parameters[name]))

    def _fix_alone(self) -> None:
        """To reorder nothing but an index buffer and what is looked up by it relabels no
        neurons."""
        floating = set[int]()
        for name in self.parameters.keys() - self.integers:
            floating.update(self._leaves_of(name))
        for name in self.integers:
            for leaf in self._leaves_of(name) - floating:
                self.leaves.fix((leaf,), ALONE)

    def _tie_unread(self, expr: Expr, alive: set[int]) -> bool:
        """Rows of a table that this example did not read (later positions) move as those that it
        read; whether there were any."""
        tied = False
        for atom in self.leaves.expand(expr):
            bound = self.leaves.binding(atom)
            if isinstance(bound, Table):
                tied |= self._tie_entries(bound.parts, alive)
                parts = bound.parts
            else:
                parts = self.leaves.parts(atom)
            for part in parts:
                tied |= self._tie_unread(part, alive)
        return tied

    def _tie_entries(self, entries: Sequence[Expr], alive: set[int]) -> bool:
        read = self._read(entries, alive)
        if read is None:
            return False
        tied = False
        for entry in entries:
            inside = set(self.leaves.unbound(entry))
            if inside and alive.isdisjoint(inside):
                self.equations.equate(read, entry, UNREAD)
                tied = True
        return tied

    def _read(self, entries: Sequence[Expr], alive: set[int]) -> Expr | None:
        """An entry that was read, or the first such entry of a table inside."""
        for entry in entries:
            atoms = self.leaves.expand(entry)
            inner = self.leaves.binding(atoms[0]) if len(atoms) == 1 else None
            if isinstance(inner, Table):
                read = self._read(inner.parts, alive)
                if read is not None:
                    return read
            elif alive.issuperset(self.leaves.unbound(entry)):
                return entry
        return None
