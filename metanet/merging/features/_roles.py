"""Features: which axes of which tensors make the neurons of a group and which read them, and what
acts along these.

What makes a neuron (rows of weights, biases, gains and statistics of norms) is averaged when
neurons become one, what reads it is added up or repeated. The graph template knows both:
destinations and sources.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...graph import Block, EdgeType, GraphTemplate, NodeType, row_major
from ...symmetry import Axis, Choice, Concat, Leaf, Product, SymmetrySpec, leaves_of

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
    """The roles of all tensors."""
    made: dict[str, set[int]] = {}
    read: dict[str, set[int]] = {}
    unknown: set[str] = set()
    outputs: dict[str, int] = {}
    for block in template.blocks:
        if block.tensor is None:
            continue
        if block.type == EdgeType.TENSOR:
            unknown.update(block.names)
        shape = (*template.shapes[block.tensor], template.parts(block.tensor))
        for axis, role in _digits(block, shape):
            for name in block.names:
                if role in (
                    "destination",
                    "group",
                ):  # of a depthwise kernel, too: one for each neuron
                    made.setdefault(name, set()).add(axis)
                    if template.nodes[block.destination].type == NodeType.OUTPUT:
                        outputs[name] = axis
                elif role == "source":
                    read.setdefault(name, set()).add(axis)
    return Roles(
        {n: frozenset(a) for n, a in made.items()}, {n: frozenset(a) for n, a in read.items()}, frozenset(unknown),
        outputs,
    )  # fmt: skip


def _digits(block: Block, shape: Sequence[int]) -> list[tuple[int, str]]:
    """The axes of the tensor that the block's digits run along, with the role of the digit."""
    out = []
    for size, stride, role in zip(block.shape, block.edge_strides, block.roles, strict=True):
        if size == 1:
            continue
        for axis, (n, step) in enumerate(zip(shape, row_major(shape), strict=True)):
            if n > 1 and stride < step * n and step < stride * size:
                out.append((axis, role))
    return out


def candidates(spec: SymmetrySpec, roles: Roles) -> tuple[list[str], dict[str, str]]:
    """Groups whose neurons may become one, as far as names and axes tell, and for all others why
    not."""
    keyed = {k for g in spec.groups for k in g.keys}
    why: dict[str, str] = {}
    for name, tensor in spec.tensors.items():
        if tensor.integer:
            masked = {leaf.group for axis in tensor.axes for leaf in leaves_of(axis)}
            why |= {
                g: f"{name} holds integers or truth values, which have no mean"
                for g in masked
                if g not in why
            }
            continue
        for number, axis in enumerate(tensor.axes):
            chosen = {leaf.group for part in _choices(axis) for leaf in leaves_of(part)}
            for group in {leaf.group for leaf in leaves_of(axis)}:
                if tensor.is_complex:
                    why.setdefault(group, f"{name} holds complex numbers")
                elif name in roles.unknown or group in chosen:
                    why.setdefault(group, f"the place of {name} in the network is not known")
                elif roles.makes(name, number) == (number in roles.read.get(name, ())):
                    why.setdefault(group, f"{name} makes and reads neurons along one axis")
        for axes in _made_together(name, tensor.axes, roles):
            for group in axes:
                why.setdefault(group, f"{name} makes neurons of several groups at once")
    for group in spec.groups:
        if group.keys or group.name in keyed:
            why[group.name] = "its neurons are combined in products, as heads are"
    movable = [g.name for g in spec.groups if g.kind == "permutation" and g.size > 1]
    return [g for g in movable if g not in why], {g: why[g] for g in movable if g in why}


def _choices(axis: Axis) -> list[Choice]:
    if isinstance(axis, Choice):
        return [axis]
    return (
        [c for p in axis.parts for c in _choices(p)] if isinstance(axis, (Product, Concat)) else []
    )


def _made_together(name: str, axes: Sequence[Axis], roles: Roles) -> list[list[str]]:
    """Groups of which one entry of a tensor makes a neuron each."""
    made = [
        (n, a)
        for n, a in enumerate(axes)
        if roles.makes(name, n) and any(True for _ in leaves_of(a))
    ]
    if len(made) > 1:
        return [[leaf.group for _, a in made for leaf in leaves_of(a)]]
    return [found for _, a in made for found in _products(a)]


def _products(axis: Axis) -> list[list[str]]:
    if isinstance(axis, Product):
        several = [leaf.group for leaf in leaves_of(axis)]
        inside = sum(any(True for _ in leaves_of(p)) for p in axis.parts) > 1
        return [several] if inside else [f for p in axis.parts for f in _products(p)]
    return [f for p in axis.parts for f in _products(p)] if isinstance(axis, Concat) else []


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
            tensor = tensor.unflatten(at, [p.size for p in parts])
            for i, part in enumerate(parts):
                tensor = _along(tensor, at + i, part, act, number)
            return tensor.flatten(at, at + len(parts) - 1)
        case Concat(parts):
            pieces = tensor.split([p.size for p in parts], at)
            return torch.cat(
                [_along(t, at, p, act, number) for t, p in zip(pieces, parts, strict=True)], at
            )
    return tensor


def narrowed(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The size of an axis whose groups have other sizes."""
    match axis:
        case Leaf(group, size):
            return sizes.get(group, size)
        case Product(parts):
            return prod(narrowed(p, sizes) for p in parts)
        case Concat(parts):
            return sum(narrowed(p, sizes) for p in parts)
    return axis.size


def groups_on(spec: SymmetrySpec, name: str, groups: Collection[str]) -> list[str]:
    """Those of the groups that a tensor has."""
    axes = spec.tensors[name].axes if name in spec.tensors else ()
    return [
        g for g in dict.fromkeys(leaf.group for a in axes for leaf in leaves_of(a)) if g in groups
    ]
