"""Where the neurons of a network show: for every set of neurons in a recording one value, and one
axis of it.

New sets come out of contractions with a parameter and of sums and products of others. A set shows
after its first activation function where it has one (what is switched off is then equal in all that
is compared), else as it is made.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ..graph import ACTIVATIONS
from ..symmetry import (
    Axis,
    Choice,
    Concat,
    Contraction,
    Derivation,
    Fixed,
    Flow,
    Follow,
    Join,
    Leaf,
    Product,
    Regroup,
    SymmetrySpec,
    leaves_of,
)
from ..tracing import Trace


@dataclass(frozen=True)
class Tap:
    """One place to look at.

    Attributes:
        value: number of the recorded value.
        axis: which of its axes the neurons lie along.
        neurons: what that axis is made of, in the groups of the spec.
    """

    value: int
    axis: int
    neurons: Axis


def find_taps(trace: Trace, solved: Derivation, spec: SymmetrySpec) -> list[Tap]:
    """The taps of a recording at which neurons of the spec's groups show.

    Args:
        solved: derived from the recording; may have more groups than the spec, or other names for
            them.
    """
    names = _same_groups(solved.spec, spec)
    taps = []
    for value, axis in dict.fromkeys(_Walk(trace, solved).shown):
        neurons = _renamed(solved.axis(solved.axes[value][axis]), names)
        if any(True for _ in leaves_of(neurons)):
            taps.append(Tap(value, axis, neurons))
    return taps


class _Walk:
    """Follows sets of neurons through a recording, from its first operation to its last.

    ::

        x = linear(input)    set 0 is made    shown at x
        y = relu(x)          set 0            shown at y from now on
        z = y + linear(y)    sets 0 and 1 meet: their sum is set 2, shown at z

    Attributes:
        sets: of every value that shows one: the number of its set, and the axis it lies along.
        shown: of every set: the value that shows it, and the axis there.
        active: sets that an activation function was applied to.
        fed: values that depend on the network's inputs.
    """

    def __init__(self, trace: Trace, solved: Derivation) -> None:
        self.trace = trace
        self.solved = solved
        self.sets: dict[int, tuple[int, int]] = {}
        self.shown: list[tuple[int, int]] = []
        self.active: set[int] = set()
        self.fed = {*trace.inputs}
        for op, semantics in zip(trace.ops, solved.semantics, strict=True):
            if not self.fed.isdisjoint(op.inputs()):
                self.fed.update(n for n in op.outputs if n is not None)
            out = op.outputs[0]
            if out is None or semantics is None or out not in self.fed:
                continue
            self._follow(semantics.flow, out)
            if semantics.function in ACTIVATIONS:
                self._activate(out)

    def _follow(self, flows: Sequence[Flow], out: int) -> None:
        """Gives an output the set of neurons that the first flow leads to it, if one does."""
        for flow in flows:
            if out in self.sets:
                return
            place = self._along(flow, out)
            if place is not None:
                self.sets[out] = place

    def _activate(self, out: int) -> None:
        """Shows a set after its first activation function."""
        if out not in self.sets:
            return
        number, axis = self.sets[out]
        if number not in self.active and out != self.shown[number][0]:
            self.active.add(number)
            self.shown[number] = (out, axis)

    def _along(self, flow: Flow, out: int) -> tuple[int, int] | None:
        """The set of neurons of an output and their axis; ``None`` if it has none that can be
        followed."""
        match flow:
            case Contraction(_, weight, out_axis=axis) if weight.value not in self.fed:
                return self._made(out, axis)
            case Follow(operand, axes) if operand.value in self.sets:
                number, axis = self.sets[operand.value]
                return (number, axes.index(axis)) if axis in axes else None
            case Regroup(operand) if operand.value in self.sets:
                return self._regrouped(operand.value, out)
            case Join():
                return self._joined(flow, out)
        return None

    def _made(self, out: int, axis: int) -> tuple[int, int]:
        """A new set, shown where it is made."""
        self.shown.append((out, axis))
        return len(self.shown) - 1, axis

    def _regrouped(self, value: int, out: int) -> tuple[int, int] | None:
        """The last axis with the same factors: ``(samples, neurons)`` made of ``(batch, tokens,
        neurons)``."""
        number, axis = self.sets[value]
        factors = self.solved.factors(self.solved.axes[value][axis])
        if not factors:
            return None
        exprs = self.solved.axes[out]
        alike = [i for i, expr in enumerate(exprs) if self.solved.factors(expr) == factors]
        return (number, alike[-1]) if alike else None

    def _joined(self, join: Join, out: int) -> tuple[int, int] | None:
        """A new set where several meet, else the one that there is."""
        rank = len(self.trace.values[out].shape)
        places = []
        for operand in join.operands:
            if operand.value in self.sets:
                number, axis = self.sets[operand.value]
                places.append((number, axis + rank - len(operand.shape)))
        if not places:
            return None
        first, axis = places[0]
        meet = any(number != first for number, _ in places)
        return self._made(out, axis) if meet else places[0]


def _same_groups(derived: SymmetrySpec, spec: SymmetrySpec) -> dict[str, str]:
    """For the groups of one spec those of another that lie at the same places of all tensors."""
    if derived == spec:
        return {g.name: g.name for g in spec.groups}
    at_places = {places: group for group, places in _places(spec).items()}
    derived_places = _places(derived).items()
    names = {g: at_places[places] for g, places in derived_places if places in at_places}
    same = {}
    for group, name in names.items():
        keys = tuple(names.get(key) for key in derived[group].keys)
        if keys == spec[name].keys:
            same[group] = name
    return same


def _places(spec: SymmetrySpec) -> dict[str, frozenset[tuple[str, int, int, int]]]:
    """Tensor, axis, offset and stride of all that a group has."""
    places: dict[str, set[tuple[str, int, int, int]]] = defaultdict(set)
    for name, tensor in spec.tensors.items():
        for number, axis in enumerate(tensor.axes):
            for group, offset, stride in _spots(axis, 0, 1):
                places[group].add((name, number, offset, stride))
    return {group: frozenset(at) for group, at in places.items()}


def _spots(axis: Axis, offset: int, stride: int) -> Iterator[tuple[str, int, int]]:
    """Group, offset and stride of all parts of an axis that have a name.

    >>> halves = Concat((Leaf("left", 2), Leaf("right", 2)))
    >>> list(_spots(Product((Leaf("heads", 3), halves)), 0, 1))
    [('heads', 0, 4), ('left', 0, 1), ('right', 2, 1)]
    """
    match axis:
        case Leaf(group) | Fixed(_, _, group) if group:
            yield group, offset, stride
        case Product(parts):
            for i, part in enumerate(parts):
                inside = prod(p.size for p in parts[i + 1 :])
                yield from _spots(part, offset, stride * inside)
        case Concat(parts):
            for part in parts:
                yield from _spots(part, offset, stride)
                offset += stride * part.size
        case Choice(_, parts):
            for part in parts:
                yield from _spots(part, offset, stride)


def _renamed(axis: Axis, names: Mapping[str, str]) -> Axis:
    """The axis in other names; groups without one are fixed."""
    match axis:
        case Leaf(group, size) if group in names:
            return Leaf(names[group], size)
        case Leaf(_, size):
            return Fixed(size, "not one of the spec's groups")
        case Fixed(size, reason, group):
            return Fixed(size, reason, names.get(group, ""))
        case Product(parts):
            return Product(tuple(_renamed(p, names) for p in parts))
        case Concat(parts, name):
            return Concat(tuple(_renamed(p, names) for p in parts), name)
        case Choice(by, parts):
            return Choice(by, tuple(_renamed(p, names) for p in parts))
