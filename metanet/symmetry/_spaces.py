"""Which leaves may keep their keys: the rule that makes wreath products sound.

An operation computes each entry of its result from a set of index values, its *joint space*: the
axes of the output and those that are summed over. A leaf d whose permutation depends on k is
well-defined there only if k occurs exactly once beside it: without k nobody knows which permutation
is meant (a weight shared by all heads), with k twice it is ambiguous (``y @ y.T``). The same holds
for every tensor. Keys that fail are taken away; tables whose key is not there collapse. What is
left is the wreath product.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ._leaves import Leaves
from ._store import Concat, Expr, Table

Space = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Stand:
    """Axes along which integers name the items of ``label``: ``weights[ids]`` has them in place of
    the label's axis.

    Attributes:
        axes: of the integers; all of them must be there for the integers to be known.
        label: the axis whose items they name.
        ident: which integers these are.
    """

    axes: Space
    label: Expr
    ident: int


@dataclass
class Spaces:
    """All joint spaces seen so far."""

    leaves: Leaves
    seen: list[Space] = field(default_factory=list)
    stands: list[Stand] = field(default_factory=list)
    why: str = "an axis that it would depend on is not there"

    def add(self, space: Sequence[Expr]) -> None:
        """Check a space now, while its operation is at hand, and again when everything is known."""
        kept = tuple(space)
        self.seen.append(kept)
        self.check(kept)

    def settle(self) -> None:
        """Check all spaces until none takes anything away any more."""
        spaces = list(dict.fromkeys(self._canonical(s) for s in self.seen))
        self.seen = spaces
        changed = True
        while changed:
            changed = False
            for space in spaces:
                changed |= self.check(space)

    def _canonical(self, space: Space) -> Space:
        return tuple(e for e in map(self.leaves.expand, space) if e)

    def check(self, space: Space) -> bool:
        """Take away what the space does not support; whether anything was."""
        changed = False
        while True:
            atoms = [
                a for expr in space for a in self.leaves.expand(expr) if not self.leaves.is_wild(a)
            ]
            if not any(self._matters(a) for a in atoms):
                return changed
            if not self._check(atoms):
                return changed
            changed = True

    def _matters(self, atom: int) -> bool:
        bound = self.leaves.binding(atom)
        if bound is None:
            return bool(self.leaves.keys(atom))
        if isinstance(bound, Table):
            return True
        return any(self._matters(a) for s in bound.segments for a in self.leaves.expand(s))

    def _check(self, atoms: list[int]) -> bool:
        leaves = self.leaves
        concats = [a for a in atoms if isinstance(leaves.binding(a), Concat)]
        tables = [t for a in atoms for t in leaves.tables_within(a)]
        for t in dict.fromkeys(tables):
            beside = concats.count(leaves.root(leaves.binding(t).key))
            if beside > 1 or (
                beside < 1 and t in atoms
            ):  # inside a segment the key may be in there with it
                leaves.collapse(t, self.why)
                leaves.settle()
                return True
        if not concats:
            return self._check_leaves(atoms)
        first = concats[0]
        without = [a for a in atoms if a != first]
        if concats.count(first) > 1 and (
            inner := [d for d in leaves.unbound((first,)) if leaves.keys(d)]
        ):
            for leaf in inner:  # twice in one space: which of the two is meant?
                leaves.set_keys(leaf, ())
            return True
        bound = leaves.binding(first)
        needed = any(leaves.root(leaves.binding(t).key) == first for t in tables)
        if not needed and not any(
            self._involved(a, without) for s in bound.segments for a in leaves.expand(s)
        ):
            return self._check(without) if any(map(self._matters, without)) else False
        changed = False
        for i, segment in enumerate(bound.segments):
            inside = (
                *leaves.expand(segment),
                *leaves.expand(leaves.restrict(tuple(without), ((first, i),))),
            )
            changed |= self._check([a for a in inside if not leaves.is_wild(a)])
        return changed

    def _involved(self, atom: int, others: Iterable[int]) -> bool:
        """Whether an atom inside a segment has keys or is one."""
        bound = self.leaves.binding(atom)
        if isinstance(bound, Concat):
            return any(
                self._involved(a, others) for s in bound.segments for a in self.leaves.expand(s)
            )
        return (
            isinstance(bound, Table)
            or bool(self.leaves.keys(atom))
            or bool(self.leaves.dependents(atom))
        )

    def _check_leaves(self, atoms: list[int]) -> bool:
        leaves, counts, changed = self.leaves, Counter(atoms), False
        named: Counter[int] | None = None
        for leaf in counts:
            keys = leaves.keys(leaf)
            if not keys:
                continue
            if named is None:
                named = Counter(k for s in self._standing(counts) for k in leaves.unbound(s.label))
            kept = {k for k in keys if counts[k] + named[k] == 1}
            if len(kept) < len(keys):
                leaves.set_keys(leaf, kept)
                changed = True
        return changed

    def _standing(self, counts: Counter[int]) -> list[Stand]:
        found: dict[int, Stand] = {}
        for stand in self.stands:
            if all(counts[a] == 1 for e in stand.axes for a in self.leaves.expand(e)):
                found.setdefault(stand.ident, stand)
        return list(found.values())
