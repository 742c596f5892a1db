"""Which leaves may keep their keys: the rule that makes wreath products sound.

An operation computes each entry of its result from a set of index values, its *joint space*: the
axes of the output and those that are summed over. A leaf d whose permutation depends on k is
well-defined there only if k occurs exactly once beside it: without k nobody knows which permutation
is meant (a weight shared by all heads), with k twice it is ambiguous (``y @ y.T``). The same holds
for every tensor. Keys that fail are taken away; tables whose key is not there collapse. What is
left is the wreath product.

====================  =========================================================
joint space           d keyed by k
====================  =========================================================
``(batch, k, d)``     stays: every k has its own arrangement of d
``(batch, d)``        goes: whose arrangement?
``(k, k, d)``         goes: that of the first k, or that of the second?
``(k, d, d)``         stays: the same arrangement twice
====================  =========================================================
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from ._bindings import Expr
from ._equations import Equations

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

    equations: Equations
    seen: list[Space] = field(default_factory=list)
    stands: list[Stand] = field(default_factory=list)
    why: str = "an axis that it would depend on is not there"

    def __post_init__(self) -> None:
        self.leaves = self.equations.leaves

    def add(self, space: Sequence[Expr]) -> None:
        """Check a space now, while its operation is at hand, and again when everything is known."""
        axes = tuple(space)
        self.seen.append(axes)
        self.check(axes)

    def settle(self) -> None:
        """Check all spaces until none takes anything away any more."""
        self.seen = list(dict.fromkeys(map(self._canonical, self.seen)))
        changed = True
        while changed:
            changed = False
            for space in self.seen:
                changed |= self.check(space)

    def _canonical(self, space: Space) -> Space:
        return tuple(filter(None, map(self.leaves.expand, space)))

    def check(self, space: Space) -> bool:
        """Take away what the space does not support; whether anything was."""
        changed = False
        while True:
            atoms = self._varying(space)
            if not any(map(self._matters, atoms)) or not self._check(atoms):
                return changed
            changed = True

    def _varying(self, space: Iterable[Expr]) -> list[int]:
        """The atoms of a space along which something varies."""
        wild = self.leaves.wild
        return [a for expr in space for a in self.leaves.expand(expr) if a not in wild]

    def _matters(self, atom: int) -> bool:
        """Whether an atom has keys, is a table, or has either inside."""
        if atom not in self.leaves.bound:
            return bool(self.leaves.keys(atom))
        if not self.leaves.is_concat(atom):
            return True
        return any(map(self._matters, self._inside(atom)))

    def _inside(self, atom: int) -> Iterable[int]:
        """What the parts of a concatenation are made of."""
        for part in self.leaves.parts(atom):
            yield from self.leaves.expand(part)

    def _check(self, atoms: list[int]) -> bool:
        """One thing that the space does not support goes; whether there was any."""
        # heads x dims, where heads is (q | k | v) and dims the table heads?(a / b / v's own):
        # the table has its key beside it; then (q, a), (k, b), ... are spaces of their own
        leaves = self.leaves
        concats = list(filter(leaves.is_concat, atoms))
        keys = self._keys_of_tables(atoms)
        for table, key in keys.items():
            beside = concats.count(key)
            # inside a segment the key may be in there with it
            is_lost = beside < 1 and table in atoms
            if beside > 1 or is_lost:
                self.equations.collapse(table, self.why)
                leaves.settle()
                return True
        if not concats:
            return self._check_leaves(atoms)
        first = concats[0]
        is_twice = concats.count(first) > 1
        if is_twice and self._take_keys_inside(first):
            return True
        without = [a for a in atoms if a != first]
        is_key = first in keys.values()
        if is_key or any(map(self._is_involved, self._inside(first))):
            return self._check_segments(first, without)
        return any(map(self._matters, without)) and self._check(without)

    def _keys_of_tables(self, atoms: Iterable[int]) -> dict[int, int]:
        """All tables that atoms are made of, and the concatenations that they go by."""
        keys: dict[int, int] = {}
        for atom in atoms:
            for table in self.leaves.tables_within(atom):
                key = self.leaves.key(table)
                assert key is not None
                keys[table] = key
        return keys

    def _take_keys_inside(self, concat: int) -> bool:
        """A concatenation is twice in one space: which of the two is meant? Whether anybody inside
        it has keys to lose."""
        leaves = self.leaves
        keyed = [leaf for leaf in leaves.unbound((concat,)) if leaves.keys(leaf)]
        for leaf in keyed:
            leaves.set_keys(leaf, ())
        return bool(keyed)

    def _check_segments(self, concat: int, others: list[int]) -> bool:
        """Segment by segment, each with what depends on being in it."""
        leaves = self.leaves
        changed = False
        for i, segment in enumerate(leaves.parts(concat)):
            beside = leaves.restrict(tuple(others), ((concat, i),))
            changed |= self._check(self._varying((segment, beside)))
        return changed

    def _is_involved(self, atom: int) -> bool:
        """Whether an atom inside a segment has keys or is one."""
        leaves = self.leaves
        if leaves.is_concat(atom):
            return any(map(self._is_involved, self._inside(atom)))
        is_table = atom in leaves.bound
        return is_table or bool(leaves.keys(atom)) or bool(leaves.dependents(atom))

    def _check_leaves(self, atoms: list[int]) -> bool:
        """The rule itself, where no atom is a concatenation."""
        leaves = self.leaves
        counts = Counter(atoms)
        named: Counter[int] | None = None
        changed = False
        for leaf in counts:
            keys = leaves.keys(leaf)
            if not keys:
                continue
            if named is None:
                named = self._named(counts)
            # (batch, heads, dims): dims keep the key heads; (batch, dims) or (heads, heads, dims):
            # they lose it
            once = {k for k in keys if counts[k] + named[k] == 1}
            if len(once) < len(keys):
                leaves.set_keys(leaf, once)
                changed = True
        return changed

    def _named(self, counts: Counter[int]) -> Counter[int]:
        """How often a leaf is there by integers that name its items."""
        labels: dict[int, Expr] = {}
        for stand in self.stands:
            if self._is_there(stand.axes, counts):
                labels.setdefault(stand.ident, stand.label)
        named: Counter[int] = Counter()
        for label in labels.values():
            named.update(self.leaves.unbound(label))
        return named

    def _is_there(self, axes: Space, counts: Counter[int]) -> bool:
        """Whether a space has all axes of some integers, each once."""
        atoms = chain.from_iterable(map(self.leaves.expand, axes))
        return all(counts[atom] == 1 for atom in atoms)
