"""Features: which axes of which tensors make the neurons of a group and which read them, and what
acts along these.

What makes a neuron (rows of weights, biases, gains and statistics of norms) is averaged when
neurons become one, what reads it is added up or repeated. The graph template knows both:
destinations and sources.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...graph import Block, EdgeType, GraphTemplate, NodeType, row_major
from ...symmetry import Axis, Choice, Concat, Leaf, Product, SymmetrySpec, TensorAxes, leaves_of

Act = Callable[[Tensor, int, str, int], Tensor]
"""What to do along one axis: ``(tensor, axis of it, group, axis of the whole tensor)`` gives the
new tensor."""


@dataclass(frozen=True)
class Roles:
    """What the axes of tensors are to their neurons.

    Attributes:
        made: axes along which a tensor makes neurons: its destinations. By tensor, also by its
            other names.
        read: axes along which it reads them: its sources.
        unknown: tensors that have no known place in the network.
        outputs: axes along which a tensor makes the network's outputs.
    """

    made: Mapping[str, frozenset[int]]
    read: Mapping[str, frozenset[int]]
    unknown: frozenset[str]
    outputs: Mapping[str, int]

    def makes(self, name: str, axis: int) -> bool:
        return axis in self.made.get(name, ())


def roles_of(template: GraphTemplate) -> Roles:
    """The roles of all tensors.

    A linear layer's weight ``(out, in)`` makes neurons along axis 0 and reads others along axis 1;
    so does a convolution's ``(out, in, height, width)``, whose places have no role. A depthwise
    kernel ``(channels, 1, height, width)`` makes along axis 0 what it reads there: its channels
    count as made.
    """
    making: dict[str, set[int]] = defaultdict(set)
    read: dict[str, set[int]] = defaultdict(set)
    unknown: set[str] = set()
    outputs: dict[str, int] = {}
    for block in template.blocks:
        if block.tensor is None:
            continue
        if block.type == EdgeType.TENSOR:
            unknown.update(block.names)
        is_output = template.nodes[block.destination].type == NodeType.OUTPUT
        shape = (*template.shapes[block.tensor], template.parts(block.tensor))
        for axis, role in _digits(block, shape):
            axes = {"destination": making, "group": making, "source": read}.get(role)
            if axes is None:
                continue
            for name in block.names:
                axes[name].add(axis)
                if axes is making and is_output:
                    outputs[name] = axis
    return Roles(_frozen(making), _frozen(read), frozenset(unknown), outputs)


def _frozen(axes: Mapping[str, set[int]]) -> dict[str, frozenset[int]]:
    return {name: frozenset(numbers) for name, numbers in axes.items()}


def _digits(block: Block, shape: Sequence[int]) -> list[tuple[int, str]]:
    """The axes of the tensor that the block's digits run along, with the role of the digit.

    A digit of size n and stride s counts entries s, 2 s, ... (n - 1) s of the flat tensor; an axis
    those from its own step to its step times its size. They run along one another where the two
    spans overlap::

        shape (4, 6), steps (6, 1):     axis 0: 6 .. 24    axis 1: 1 .. 6
        digit of size 3, stride 2:      2 .. 6, along axis 1
    """
    runs = []
    for size, stride, role in zip(block.shape, block.edge_strides, block.roles, strict=True):
        if size == 1:
            continue
        for axis, (count, step) in enumerate(zip(shape, row_major(shape), strict=True)):
            overlap = stride < step * count and step < stride * size
            if count > 1 and overlap:
                runs.append((axis, role))
    return runs


def candidates(spec: SymmetrySpec, roles: Roles) -> tuple[list[str], dict[str, str]]:
    """Groups whose neurons may become one, as far as axes tell; for all others why not."""
    reasons: dict[str, str] = {}
    for name, tensor in spec.tensors.items():
        for group, reason in _objections(name, tensor, roles):
            reasons.setdefault(group, reason)
    keyed = {one.name for one in spec.groups if one.keys}
    keys = set().union(*(one.keys for one in spec.groups))
    reasons |= dict.fromkeys(keyed | keys, "its neurons are combined in products, as heads are")
    movable = [one.name for one in spec.groups if one.kind == "permutation" and one.size > 1]
    free = [group for group in movable if group not in reasons]
    return free, {group: reasons[group] for group in movable if group in reasons}


def _objections(name: str, tensor: TensorAxes, roles: Roles) -> Iterator[tuple[str, str]]:
    """Groups of which a tensor tells that their neurons may not become one, and why."""
    of_tensor = [group for axis in tensor.axes for group in _groups(axis)]
    if tensor.integer:
        yield from (
            (group, f"{name} holds integers or truth values, which have no mean")
            for group in of_tensor
        )
        return
    if tensor.is_complex:
        yield from ((group, f"{name} holds complex numbers") for group in of_tensor)
    else:
        yield from _objections_by_place(name, tensor, roles)
    for group in _made_together(name, tensor.axes, roles):
        yield group, f"{name} makes neurons of several groups at once"


def _objections_by_place(name: str, tensor: TensorAxes, roles: Roles) -> Iterator[tuple[str, str]]:
    """Those that follow from where a tensor stands: which of its axes make neurons, and which read them."""
    for number, axis in enumerate(tensor.axes):
        unplaced = [axis] if name in roles.unknown else _choices(axis)
        for part in unplaced:
            for group in _groups(part):
                yield group, f"the place of {name} in the network is not known"
        if roles.makes(name, number) == (number in roles.read.get(name, ())):
            for group in _groups(axis):
                yield group, f"{name} makes and reads neurons along one axis"


def _groups(axis: Axis) -> list[str]:
    """The groups along an axis, each once."""
    return list(dict.fromkeys(leaf.group for leaf in leaves_of(axis)))


def _choices(axis: Axis) -> list[Choice]:
    if isinstance(axis, Choice):
        return [axis]
    if isinstance(axis, (Product, Concat)):
        return [choice for part in axis.parts for choice in _choices(part)]
    return []


def _made_together(name: str, axes: Sequence[Axis], roles: Roles) -> list[str]:
    """Groups of which one entry of a tensor makes a neuron each.

    Along two axes, or along one that is a product of groups: entry ``(h, d)`` of ``heads x dims``.
    """
    making = [axis for number, axis in enumerate(axes) if roles.makes(name, number)]
    making = [axis for axis in making if _groups(axis)]
    if len(making) > 1:
        return [group for axis in making for group in _groups(axis)]
    return [group for axis in making for group in _in_products(axis)]


def _in_products(axis: Axis) -> list[str]:
    """Groups that stand in a product with others: ``q | (heads x dims)`` gives heads and dims."""
    if not isinstance(axis, (Product, Concat)):
        return []
    with_groups = [part for part in axis.parts if _groups(part)]
    if isinstance(axis, Product) and len(with_groups) > 1:
        return _groups(axis)
    return [group for part in with_groups for group in _in_products(part)]


def along(tensor: Tensor, axes: Sequence[Axis], act: Act) -> Tensor:
    """Do something along every axis, or part of an axis, that is neurons of a group; sizes may
    change."""
    for number, axis in enumerate(axes):
        tensor = _along(tensor, number, axis, act, number)
    return tensor


def _along(tensor: Tensor, at: int, axis: Axis, act: Act, number: int) -> Tensor:
    match axis:
        case Leaf(group):
            return act(tensor, at, group, number)
        case Product(parts):
            tensor = tensor.unflatten(at, [part.size for part in parts])
            for place, part in enumerate(parts, at):
                tensor = _along(tensor, place, part, act, number)
            return tensor.flatten(at, at + len(parts) - 1)
        case Concat(parts):
            pieces = tensor.split([part.size for part in parts], at)
            changed = []
            for piece, part in zip(pieces, parts, strict=True):
                changed.append(_along(piece, at, part, act, number))
            return torch.cat(changed, at)
    return tensor


def narrowed(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The size of an axis whose groups have other sizes."""
    match axis:
        case Leaf(group, size):
            return sizes.get(group, size)
        case Product(parts):
            return prod(narrowed(part, sizes) for part in parts)
        case Concat(parts):
            return sum(narrowed(part, sizes) for part in parts)
    return axis.size


def groups_on(spec: SymmetrySpec, name: str, groups: Collection[str]) -> list[str]:
    """Those of the groups that a tensor has."""
    if name not in spec.tensors:
        return []
    leaves = [leaf for axis in spec.tensors[name].axes for leaf in leaves_of(axis)]
    return [group for group in dict.fromkeys(leaf.group for leaf in leaves) if group in groups]
