"""Charges: by which power of its neuron's factor an entry is multiplied, and the linear equations
between them.

Let every neuron i of a leaf be multiplied by a factor s_i. An entry of a tensor that has the leaf
on one of its axes is then multiplied by ``s_i ** q``; q is the *charge* of that occurrence of the
leaf. For factors of -1 only the parity of q matters (``"sign"``), for positive ones q is a rational
number (``"scale"``). Charges of parameters are unknown, those of results are linear forms in them.

A hidden layer of ReLU units, and what it says of its neurons' charges::

    w1[i, j]          a          unknown
    relu(w1 @ x)[i]   a          relu is homogeneous: no sign, the same scale
    w2[k, i]          b          unknown
    w2 @ h            a + b = 0  the neurons are summed over: scales are free, b = -a
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import NamedTuple

from ._bindings import Expr, Path
from ._forms import SCALE as SCALE
from ._forms import SIGN as SIGN
from ._forms import ZERO as ZERO
from ._forms import Form as Form
from ._forms import Number as Number
from ._forms import System as System
from ._forms import part as part
from ._forms import plus as plus
from ._forms import power as power
from ._leaves import Leaves


class Occurrence(NamedTuple):
    """An unbound leaf on an axis; without a form it is none of those that charges are looked
    for."""

    root: int
    form: Form | None

    @property
    def live(self) -> bool:
        """Whether charges are looked for."""
        return self.form is not None

    @property
    def parts(self) -> tuple["Charges", ...]:
        """None: only concatenations and tables have some."""
        return ()

    @property
    def key(self) -> int | None:
        """None: only tables have one."""
        return None


class Cat(NamedTuple):
    """A concatenation, with the charges of its segments."""

    root: int
    parts: tuple["Charges", ...]
    live: bool

    @property
    def key(self) -> int | None:
        """None: only tables have one."""
        return None


class Tab(NamedTuple):
    """A table, with the charges of its entries."""

    root: int
    key: int
    parts: tuple["Charges", ...]
    live: bool


Node = Occurrence | Cat | Tab
# Of one axis. Empty: the entries are not multiplied along it, as it has no leaf of interest or its
# charges are 0.
Charges = tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class ChargedStretch:
    """A stretch of an axis, and the segments of which concatenations one is in there."""

    axis: Charges
    path: Path
    size: int


class Balance:
    """Charges of axes, and the equations between them.

    Attributes:
        leaves: solved.
        targets: the leaves of interest.
        system: of the equations.
        sums: axes of sums of several results: a residual stream.
        reads: axes that do not get past an operation: where a neuron shows.
    """

    def __init__(self, leaves: Leaves, targets: frozenset[int]) -> None:
        self.leaves = leaves
        self.targets = targets
        self.system = System()
        self.sums: list[Charges] = []
        self.reads: list[Charges] = []
        self._noughts: dict[tuple[Expr, bool], Charges] = {}

    # ---------------------------------------------------------------- making

    def nought(self, expr: Expr, whole: bool = False) -> Charges:
        """The charges of an axis, all 0.

        Args:
            whole: with all its leaves, those without interest too.
        """
        charges = self._noughts.get((expr, whole))
        if charges is None:
            charges = self._nought(self.leaves.expand(expr), whole)
            self._noughts[expr, whole] = charges
        return charges

    def _nought(self, atoms: Expr, whole: bool) -> Charges:
        unbound = self.leaves.bound.keys().isdisjoint(atoms)
        if unbound and not whole:
            targets = [atom for atom in atoms if atom in self.targets]
            return tuple([Occurrence(atom, ZERO) for atom in targets])
        nodes = tuple(map(self._node, atoms))
        if whole or _is_live(nodes):
            return nodes
        # tables elsewhere go by a concatenation: then it is of interest itself
        return nodes if any(map(self._is_key, atoms)) else ()

    def _is_key(self, atom: int) -> bool:
        return self.leaves.is_concat(atom) and bool(self.leaves.tables.get(atom))

    def _node(self, atom: int) -> Node:
        """An atom with charges 0."""
        if atom not in self.leaves.bound:
            return Occurrence(atom, ZERO if atom in self.targets else None)
        inside = self.leaves.parts(atom)
        parts = tuple([self.nought(expr, whole=True) for expr in inside])
        live = any(map(_is_live, parts))
        key = self.leaves.key(atom)
        if key is None:
            return Cat(atom, parts, live)
        return Tab(atom, key, parts, live)

    def unknown(self, expr: Expr) -> Charges:
        """The charges of a parameter's axis."""
        return self._mapped(self.nought(expr), lambda root, form: self.system.fresh(root))

    # ---------------------------------------------------------------- reading

    def mapped(self, axis: Charges, change: Callable[[Form], Form]) -> Charges:
        """Every charge changed."""
        return self._mapped(axis, lambda root, form: change(form)) if axis else axis

    def _mapped(self, axis: Charges, change: Callable[[int, Form], Form]) -> Charges:
        out: list[Node] = []
        for node in axis:
            if isinstance(node, Occurrence):
                root, form = node
                out.append(node if form is None else Occurrence(root, change(root, form)))
            elif node.live:
                parts = tuple([self._mapped(part, change) for part in node.parts])
                out.append(node._replace(parts=parts))
            else:
                out.append(node)
        return tuple(out)

    def forms(self, axis: Charges) -> Iterator[tuple[int, Form]]:
        """Every leaf that charges are looked for and its charge, in order."""
        for node in axis:
            if not isinstance(node, Occurrence):
                for inner in node.parts:
                    yield from self.forms(inner)
            elif node.form is not None:
                yield node.root, node.form

    def alike(self, a: Charges, b: Charges) -> bool:
        """Whether two axes list the same items of the same leaves."""
        if a is b or _is_one_leaf(a, b):
            return True
        ours = [node for node in a if node.live]
        theirs = [node for node in b if node.live]
        if len(ours) != len(theirs):
            return False
        return all(map(self._same_node, ours, theirs))

    def _same_node(self, a: Node, b: Node) -> bool:
        """Whether two nodes list the same items."""
        if type(a) is not type(b) or a.key != b.key or len(a.parts) != len(b.parts):
            return False
        if isinstance(a, Occurrence):
            return a.root == b.root
        return all(map(self.alike, a.parts, b.parts))

    def filled(self, like: Charges, axis: Charges) -> Charges:
        """An axis with what it leaves out as of no interest, by one that is alike."""
        forms = self.forms(axis)
        return self.mapped(like, lambda _: next(forms)[1])

    def complete(self, expr: Expr, axis: Charges) -> Charges:
        """The charges of an axis with all its leaves, those without interest too."""
        whole = self.nought(expr, True)
        return self.filled(whole, axis) if axis else whole

    # ---------------------------------------------------------------- equations

    def pin(self, axis: Charges, kind: int | None = None) -> None:
        """All charges (of one kind) are 0."""
        for _, form in self.forms(axis):
            self.system.vanish(form if kind is None else part(form, kind))

    def sum(self, a: Charges, b: Charges, k: Number = 1) -> Charges:
        """``a + k b``, as for a product. Where the two have nothing to do with each other all
        charges are 0."""
        if not b:
            return a
        if not a:
            return b if k == 1 else self.mapped(b, lambda f: power(f, k))
        if not self.alike(a, b):
            self.pin(a)
            self.pin(b)
            return ()
        others = self.forms(b)
        return self.mapped(a, lambda f: plus(f, next(others)[1], k))

    def equal(self, a: Charges, b: Charges) -> None:
        """Both have the same charges, as the terms of a sum must."""
        if a is not b:
            self._balance(a, b, -1)

    def all_equal(self, axes: Sequence[Charges]) -> None:
        """All have the same charges."""
        for other in axes[1:]:
            self.equal(axes[0], other)

    def cancel(self, a: Charges, b: Charges) -> None:
        """The axis is summed over."""
        if a and b:
            self.reads.append(a)
        self._balance(a, b, 1)

    def _balance(self, a: Charges, b: Charges, k: int) -> None:
        """``a + k b = 0``."""
        if not self.alike(a, b):
            self.pin(a)
            self.pin(b)
            return
        for (_, one), (_, other) in zip(self.forms(a), self.forms(b), strict=True):
            self.system.vanish(plus(one, other, k))

    def factors(self) -> dict[tuple[int, int], int]:
        """For each leaf and kind that has any a free unknown of which its neurons show something:
        see ``_also.py``."""
        reads = self._shown(self.reads)
        sums = self._shown(self.sums)
        free: dict[tuple[int, int], int] = {}
        for place, read in reads.items():
            # read as a + b, and as b + c in a residual stream: b
            shown = read & sums.get(place, read)
            if shown:
                free[place] = min(shown)
        return free

    def _shown(self, axes: Sequence[Charges]) -> dict[tuple[int, int], set[int]]:
        """For each leaf and kind the unknowns that its charges on some axes are made of."""
        shown: dict[tuple[int, int], set[int]] = {}
        for root, form in chain.from_iterable(map(self.forms, axes)):
            reduced = self.system.reduced(form)
            for kind in (SIGN, SCALE):
                shown.setdefault((root, kind), set()).update(part(reduced, kind))
        return shown

    # ---------------------------------------------------------------- stretches

    def size(self, axis: Charges) -> int:
        """Number of items of an axis that is known as a whole."""
        return prod(self.leaves.sizes[node.root] for node in axis)

    def stretches(self, axis: Charges, size: int | None = None) -> list[ChargedStretch]:
        """An axis as a sequence of stretches: a concatenation in front is taken apart with what
        hangs on it."""
        if not axis or not isinstance(axis[0], Cat):
            whole = self.size(axis) if size is None else size
            return [ChargedStretch(axis, (), whole)]
        first = axis[0]
        behind = axis[1:]
        out: list[ChargedStretch] = []
        for i, segment in enumerate(first.parts):
            step = ((first.root, i),)
            for inner in self.stretches(segment + self.restrict(behind, step)):
                out.append(ChargedStretch(inner.axis, step + inner.path, inner.size))
        return out

    def restrict(self, axis: Charges, path: Path) -> Charges:
        """The axis where the concatenations of ``path`` are in the given segments."""
        for key, segment in path:
            out: list[Node] = []
            for node in axis:
                is_table = node.key == key
                out += node.parts[segment] if is_table else (node,)
            axis = tuple(out)
        return axis

    def depends(self, axis: Charges, keys: frozenset[int]) -> bool:
        """Whether the axis differs between the segments of some concatenation."""

        def differs(node: Node) -> bool:
            return node.key in keys or any(self.depends(inner, keys) for inner in node.parts)

        return any(map(differs, axis))

    def joined(self, like: Charges, stretches: Sequence[ChargedStretch]) -> Charges | None:
        """Stretches one behind the other as the axis that they make up; ``None`` if they are not
        its stretches."""
        if not like or not isinstance(like[0], Cat):
            if len(stretches) != 1 or not self.alike(like, stretches[0].axis):
                return None
            return self.filled(like, stretches[0].axis)
        if _is_live(like[1:]):
            return None
        # three stretches as ((a | b) | c): the first segment is made up of two of them, then c
        behind = like[1:]
        parts: list[Charges] = []
        remaining = list(stretches)
        for segment in like[0].parts:
            n = len(self.stretches(segment))
            inner = self.joined(segment, remaining[:n])
            if inner is None:
                return None
            parts.append(inner)
            remaining = remaining[n:]
        if remaining:
            return None
        return (like[0]._replace(parts=tuple(parts)), *behind)


def _is_live(axis: Charges) -> bool:
    """Whether charges are looked for anywhere on an axis."""
    return any(node.live for node in axis)


def _is_one_leaf(a: Charges, b: Charges) -> bool:
    """Whether both are nothing but the same leaf: most axes are."""
    if len(a) != 1 or len(b) != 1 or a[0].root != b[0].root:
        return False
    return type(a[0]) is type(b[0]) is Occurrence
