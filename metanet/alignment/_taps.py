"""Where the neurons of a network show: for every set of neurons in a recording one value, and one
axis of it.

New sets come out of contractions with a parameter and of sums and products of others. A set shows
after its first activation function where it has one (what is switched off is then equal in all that
is compared), else as it is made.
"""

from collections.abc import Collection, Mapping
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
)  # fmt: skip
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
    sets: dict[int, tuple[int, int]] = {}  # value -> its set of neurons, and their axis
    shown: list[tuple[int, int]] = []  # set of neurons -> value, axis
    active: set[int] = set()
    fed = {*trace.inputs}  # values that depend on the network's inputs
    for op, said in zip(trace.ops, solved.semantics, strict=True):
        out = op.outputs[0]
        if fed & {*op.inputs()}:
            fed.update(n for n in op.outputs if n is not None)
        if out is None or said is None or out not in fed:
            continue
        for flow in said.flow:
            if out not in sets and (found := _follow(flow, out, sets, shown, fed, trace, solved)):
                sets[out] = found
        if out in sets and said.function in ACTIVATIONS:
            number, axis = sets[out]
            if number not in active and out != shown[number][0]:
                active.add(number)
                shown[number] = (out, axis)
    names = _same_groups(solved.spec, spec)
    taps = []
    for value, axis in dict.fromkeys(shown):
        neurons = _renamed(solved.axis(solved.axes[value][axis]), names)
        if any(True for _ in leaves_of(neurons)):
            taps.append(Tap(value, axis, neurons))
    return taps


def _follow(
    flow: Flow, out: int, sets: Mapping[int, tuple[int, int]], shown: list[tuple[int, int]],
    fed: Collection[int], trace: Trace, solved: Derivation,
) -> tuple[int, int] | None:  # fmt: skip
    """The set of neurons of an output and their axis; ``None`` if it has none that can be
    followed."""

    def new(axis: int) -> tuple[int, int]:
        shown.append((out, axis))
        return len(shown) - 1, axis

    match flow:
        case Contraction(_, weight, out_axis=axis) if weight.value not in fed:
            return new(axis)
        case Follow(operand, axes) if operand.value in sets:
            number, axis = sets[operand.value]
            return (number, axes.index(axis)) if axis in axes else None
        case Regroup(operand) if operand.value in sets:
            number, axis = sets[operand.value]
            same = solved.factors(solved.axes[operand.value][axis])
            alike = [
                i
                for i, expr in enumerate(solved.axes[out])
                if same and solved.factors(expr) == same
            ]
            return (number, alike[-1]) if alike else None
        case Join(operands):
            rank = len(trace.values[out].shape)
            known = [
                (sets[o.value][0], sets[o.value][1] + rank - len(o.shape))
                for o in operands
                if o.value in sets
            ]
            several = len({number for number, _ in known}) > 1
            return new(known[0][1]) if several else known[0] if known else None
    return None


def _same_groups(derived: SymmetrySpec, spec: SymmetrySpec) -> dict[str, str]:
    """For the groups of one spec those of another that lie at the same places of all tensors."""
    if derived == spec:
        return {g.name: g.name for g in spec.groups}
    places, wanted = _places(derived), {at: g for g, at in _places(spec).items()}
    same = {g: wanted[at] for g, at in places.items() if at in wanted}

    def agree(group: str) -> bool:
        return tuple(same.get(k) for k in derived[group].keys) == spec[same[group]].keys

    return {g: name for g, name in same.items() if agree(g)}


def _places(spec: SymmetrySpec) -> dict[str, frozenset[tuple[str, int, int, int]]]:
    """Tensor, axis, offset and stride of all that a group has."""
    found: dict[str, set[tuple[str, int, int, int]]] = {}

    def walk(name: str, number: int, axis: Axis, offset: int, stride: int) -> None:
        match axis:
            case Leaf(group) | Fixed(_, _, group) if group:
                found.setdefault(group, set()).add((name, number, offset, stride))
            case Product(parts):
                for i, part in enumerate(parts):
                    walk(name, number, part, offset, stride * prod(p.size for p in parts[i + 1 :]))
            case Concat(parts):
                for part in parts:
                    walk(name, number, part, offset, stride)
                    offset += stride * part.size
            case Choice(_, parts):
                for part in parts:
                    walk(name, number, part, offset, stride)

    for name, tensor in spec.tensors.items():
        for number, axis in enumerate(tensor.axes):
            walk(name, number, axis, 0, 1)
    return {g: frozenset(at) for g, at in found.items()}


def _renamed(axis: Axis, names: Mapping[str, str]) -> Axis:
    """The axis in other names; groups without one are fixed."""
    match axis:
        case Leaf(group, size):
            return (
                Leaf(names[group], size)
                if group in names
                else Fixed(size, "not one of the spec's groups")
            )
        case Fixed(size, reason, group):
            return Fixed(size, reason, names.get(group, ""))
        case Product(parts):
            return Product(tuple(_renamed(p, names) for p in parts))
        case Concat(parts, name):
            return Concat(tuple(_renamed(p, names) for p in parts), name)
        case Choice(by, parts):
            return Choice(by, tuple(_renamed(p, names) for p in parts))
