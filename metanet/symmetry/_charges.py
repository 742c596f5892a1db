"""Charges: by which power of its neuron's factor an entry is multiplied, and the linear equations
between them.

Let every neuron i of a leaf be multiplied by a factor s_i. An entry of a tensor that has the leaf
on one of its axes is then multiplied by ``s_i ** q``; q is the *charge* of that occurrence of the
leaf. For factors of -1 only the parity of q matters (``"sign"``), for positive ones q is a rational
number (``"scale"``). Charges of parameters are unknown, those of results are linear forms in them.
A form holds the unknowns of both kinds at once: even numbers stand for signs, modulo 2, odd ones
for scales.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import NamedTuple

from ._bindings import Expr, Table
from ._leaves import Leaves

Number = int | Fraction
Form = Mapping[int, Number]
ZERO: Form = {}
SIGN, SCALE = 0, 1


class Occurrence(NamedTuple):
    """An unbound leaf on an axis; without a form it is none of those that charges are looked
    for."""

    root: int
    form: Form | None

    @property
    def live(self) -> bool:
        return self.form is not None


class Cat(NamedTuple):
    """A concatenation, with the charges of its segments."""

    root: int
    segments: tuple["Charges", ...]
    live: bool


class Tab(NamedTuple):
    """A table, with the charges of its entries."""

    root: int
    key: int
    entries: tuple["Charges", ...]
    live: bool


# Of one axis. Empty: the entries are not multiplied along it, as it has no leaf of interest or its
# charges are 0.
Charges = tuple[Occurrence | Cat | Tab, ...]


def plus(a: Form, b: Form, k: Number = 1) -> Form:
    """``a + k b``."""
    if not b:
        return a
    if not a and k == 1:
        return b
    out = dict(a)
    for v, c in b.items():
        total = out.get(v, 0) + k * c
        if not v & 1:
            total %= 2
        if total:
            out[v] = total
        else:
            out.pop(v, None)
    return out


def part(form: Form, kind: int) -> Form:
    """The unknowns of one kind."""
    return {v: c for v, c in form.items() if v & 1 == kind} if form else form


def power(form: Form, k: Number) -> Form:
    """The charge of ``x ** k``. Without meaning for signs unless k is an integer."""
    return {v: c * k % 2 if not v & 1 else c * k for v, c in form.items() if v & 1 or c * k % 2}


class System:
    """Homogeneous linear equations between unknowns, solved as they come: the newest unknown goes
    first."""

    def __init__(self) -> None:
        self.owner: list[int] = []  # leaf of each pair of unknowns
        self.solved: dict[int, Form] = {}

    def fresh(self, leaf: int) -> Form:
        """An unknown charge, of both kinds."""
        n = 2 * len(self.owner)
        self.owner.append(leaf)
        return {n: 1, n + 1: 1}

    def reduced(self, form: Form) -> Form:
        """The form in free unknowns."""
        solved = self.solved
        while not solved.keys().isdisjoint(form):
            out: Form = ZERO
            for v, c in form.items():
                inner = solved.get(v)
                out = plus(out, {v: 1}, c) if inner is None else plus(out, inner, c)
            form = out
        return form

    def vanish(self, form: Form) -> None:
        """The charge is 0."""
        if not form:
            return
        parts: tuple[dict[int, Number], dict[int, Number]] = ({}, {})
        for v, c in self.reduced(form).items():
            parts[v & 1][v] = c
        for kind, rest in enumerate(parts):
            if rest:
                newest = max(rest)
                c = rest.pop(newest)
                if kind == SCALE:
                    rest = {
                        v: -x * c if c in (1, -1) else Fraction(-x) / c for v, x in rest.items()
                    }
                self.solved[newest] = rest


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of an axis, and the segments of which concatenations one is in there."""

    axis: Charges
    path: tuple[tuple[int, int], ...]
    size: int


class Balance:
    """Charges of axes, and the equations between them."""

    def __init__(self, leaves: Leaves, targets: frozenset[int]) -> None:
        self.leaves, self.targets, self.system = leaves, targets, System()
        self.sums: list[Charges] = []  # of several results: a residual stream
        self.reads: list[Charges] = []  # by what does not pass them on: where a neuron shows
        self._known: dict[tuple[Expr, bool], Charges] = {}

    # ---------------------------------------------------------------- making

    def nought(self, expr: Expr, whole: bool = False) -> Charges:
        """The charges of an axis, all 0.

        Args:
            whole: with all its leaves, those without interest too.
        """
        found = self._known.get((expr, whole))
        if found is None:
            found = self._known[expr, whole] = self._nought(self.leaves.expand(expr), whole)
        return found

    def _nought(self, atoms: Expr, whole: bool) -> Charges:
        leaves = self.leaves
        if not whole and not any(a in leaves.bound for a in atoms):
            return tuple(Occurrence(a, ZERO) for a in atoms if a in self.targets)
        nodes: list[Occurrence | Cat | Tab] = []
        keep = whole
        for atom in atoms:
            bound = leaves.binding(atom)
            if bound is None:
                nodes.append(Occurrence(atom, ZERO if atom in self.targets else None))
            else:
                parts = leaves.parts(atom)
                inner = tuple(self.nought(p, True) for p in parts)
                live = any(n.live for axis in inner for n in axis)
                if isinstance(bound, Table):
                    nodes.append(Tab(atom, leaves.root(bound.key), inner, live))
                else:
                    nodes.append(Cat(atom, inner, live))
                    keep = keep or bool(leaves.tables.get(atom))
            keep = keep or nodes[-1].live
        return tuple(nodes) if keep else ()

    def unknown(self, expr: Expr) -> Charges:
        """The charges of a parameter's axis."""
        return self._mapped(self.nought(expr), lambda root, form: self.system.fresh(root))

    # ---------------------------------------------------------------- reading

    def mapped(self, axis: Charges, change: Callable[[Form], Form]) -> Charges:
        """Every charge changed."""
        return self._mapped(axis, lambda root, form: change(form)) if axis else axis

    def _mapped(self, axis: Charges, change: Callable[[int, Form], Form]) -> Charges:
        if len(axis) == 1 and isinstance(axis[0], Occurrence) and axis[0].form is not None:
            return (Occurrence(axis[0].root, change(axis[0].root, axis[0].form)),)
        out: list[Occurrence | Cat | Tab] = []
        for n in axis:
            if not n.live:
                out.append(n)
            elif isinstance(n, Occurrence):
                out.append(Occurrence(n.root, change(n.root, n.form)))
            elif isinstance(n, Cat):
                out.append(Cat(n.root, tuple(self._mapped(s, change) for s in n.segments), True))
            else:
                out.append(
                    Tab(n.root, n.key, tuple(self._mapped(e, change) for e in n.entries), True)
                )
        return tuple(out)

    def occurrences(self, axis: Charges) -> Iterator[Occurrence]:
        """Every live occurrence, in order."""
        for n in axis:
            if isinstance(n, Occurrence):
                if n.form is not None:
                    yield n
            else:
                for inner in n.segments if isinstance(n, Cat) else n.entries:
                    yield from self.occurrences(inner)

    def alike(self, a: Charges, b: Charges) -> bool:
        """Whether two axes list the same items of the same leaves."""
        if a is b or (
            len(a) == 1 == len(b)
            and a[0].root == b[0].root
            and type(a[0]) is type(b[0]) is Occurrence
        ):
            return True
        x, y = [n for n in a if n.live], [n for n in b if n.live]
        return len(x) == len(y) and all(map(self._same_node, x, y))

    def _same_node(self, a: Occurrence | Cat | Tab, b: Occurrence | Cat | Tab) -> bool:
        if type(a) is not type(b):
            return False
        if isinstance(a, Occurrence) or isinstance(b, Occurrence):
            return a.root == b.root
        if isinstance(a, Cat) and isinstance(b, Cat):
            x, y = a.segments, b.segments
        elif isinstance(a, Tab) and isinstance(b, Tab) and a.key == b.key:
            x, y = a.entries, b.entries
        else:
            return False
        return len(x) == len(y) and all(map(self.alike, x, y))

    def filled(self, like: Charges, axis: Charges) -> Charges:
        """An axis with what it leaves out as of no interest, by one that is alike."""
        given = self.occurrences(axis)
        return self.mapped(like, lambda _: next(given).form)

    def complete(self, expr: Expr, axis: Charges) -> Charges:
        """The charges of an axis with all its leaves, those without interest too."""
        whole = self.nought(expr, True)
        return self.filled(whole, axis) if axis else whole

    # ---------------------------------------------------------------- equations

    def pin(self, axis: Charges, kind: int | None = None) -> None:
        """All charges (of one kind) are 0."""
        if axis:
            for o in self.occurrences(axis):
                if o.form:
                    self.system.vanish(o.form if kind is None else part(o.form, kind))

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
        others = self.occurrences(b)
        return self.mapped(a, lambda f: plus(f, next(others).form, k))

    def equal(self, a: Charges, b: Charges) -> None:
        """Both have the same charges, as the terms of a sum must."""
        self._balance(a, b, -1)

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
        elif len(a) == 1 == len(b) and isinstance(a[0], Occurrence):
            self.system.vanish(plus(a[0].form or ZERO, b[0].form or ZERO, k))
        elif k > 0 or a is not b:
            for x, y in zip(self.occurrences(a), self.occurrences(b), strict=True):
                self.system.vanish(plus(x.form, y.form, k))

    def factors(self) -> dict[tuple[int, int], int]:
        """For each leaf and kind that has any a free unknown of which its neurons show something:
        see ``_also.py``."""
        seen: list[dict[tuple[int, int], set[int]]] = []
        for axes in (self.reads, self.sums):
            seen.append({})
            for o in (o for axis in axes for o in self.occurrences(axis)):
                for kind in (SIGN, SCALE):
                    seen[-1].setdefault((o.root, kind), set())
                for unknown in self.system.reduced(o.form):
                    seen[-1][o.root, unknown & 1].add(unknown)
        reads, sums = seen
        return {
            own: min(found) for own, read in reads.items() if (found := read & sums.get(own, read))
        }

    # ---------------------------------------------------------------- stretches

    def size(self, axis: Charges) -> int:
        """Number of items of an axis that is known as a whole."""
        return prod(self.leaves.size((n.root,)) for n in axis)

    def pieces(self, axis: Charges, size: int | None = None) -> list[Piece]:
        """An axis as a sequence of stretches: a concatenation in front is taken apart with what
        hangs on it."""
        if not axis or not isinstance(axis[0], Cat):
            return [Piece(axis, (), self.size(axis) if size is None else size)]
        first, out = axis[0], []
        for i, segment in enumerate(first.segments):
            step = ((first.root, i),)
            for piece in self.pieces(segment + self.restrict(axis[1:], step)):
                out.append(Piece(piece.axis, step + piece.path, piece.size))
        return out

    def restrict(self, axis: Charges, path: Sequence[tuple[int, int]]) -> Charges:
        """The axis where the concatenations of ``path`` are in the given segments."""
        for key, segment in path:
            if any(isinstance(n, Tab) and n.key == key for n in axis):
                out: list[Occurrence | Cat | Tab] = []
                for n in axis:
                    out += n.entries[segment] if isinstance(n, Tab) and n.key == key else (n,)
                axis = tuple(out)
        return axis

    def depends(self, axis: Charges, keys: frozenset[int]) -> bool:
        """Whether the axis differs between the segments of some concatenation."""
        for n in axis:
            if isinstance(n, Tab) and (
                n.key in keys or any(self.depends(e, keys) for e in n.entries)
            ):
                return True
            if isinstance(n, Cat) and any(self.depends(s, keys) for s in n.segments):
                return True
        return False

    def joined(self, like: Charges, pieces: Sequence[Piece]) -> Charges | None:
        """Stretches one behind the other as the axis that they make up; ``None`` if they are not
        its stretches."""
        if like and isinstance(like[0], Cat):
            if any(n.live for n in like[1:]):
                return None
            segments, rest = [], list(pieces)
            for segment in like[0].segments:
                n = len(self.pieces(segment))
                inner = self.joined(segment, rest[:n])
                if inner is None:
                    return None
                segments.append(inner)
                rest = rest[n:]
            return (like[0]._replace(segments=tuple(segments)), *like[1:]) if not rest else None
        if len(pieces) != 1 or not self.alike(like, pieces[0].axis):
            return None
        return self.filled(like, pieces[0].axis)
