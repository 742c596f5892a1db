"""From a solved recording to the graph template: the nodes in their final order, the tensors as
blocks of edges."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from ...symmetry import Derivation
from ...tracing import Trace
from ..template._blocks import Block, NodeRange
from ..template._schema import EdgeType, Role, parts_of
from ..template._template import GraphTemplate
from ._attention import attention_maps
from ._boxes import Box, Strided, boxes
from ._ids import only_first, only_varying, varying
from ._leftovers import place_leftovers
from ._numbering import Numbering
from ._state import State
from ._use import Use
from ._walk import walk


@dataclass
class TemplateBuilder:
    """Builds the template of one architecture; ``warnings`` says which tensors found no place."""

    trace: Trace
    solved: Derivation
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def state(self) -> State:
        """What the pass over the recording found, and everything it left out placed by the
        symmetries."""
        state = walk(self.trace, self.solved)
        if state.summed_inputs and state.pool.inputs_united():
            state = walk(self.trace, self.solved, known=state)
        self.warnings += place_leftovers(state)
        return state

    @cached_property
    def template(self) -> GraphTemplate:
        """The template; building it takes the time that the pass takes."""
        return _template(self._numbering)

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self.state)

    def site_values(self) -> dict[int, tuple[int, int]]:
        """For each node range of neurons that lie along one axis: number of the value they show in,
        and that axis.

        The value is taken after the site's activation, where it has one.
        """
        places: dict[int, tuple[int, int]] = {}
        numbering = self._numbering
        for number, nodes in enumerate(numbering.members):
            values = [*self.trace.outputs, *self.trace.inputs]
            shown_in = self.state.pool.value.get(nodes[0])
            if shown_in is not None and not numbering.site_of(nodes[0]).raw:
                values.append(shown_in)
            axes = ((value, self._axis_of(nodes, value)) for value in values)
            shown = next(((value, axis) for value, axis in axes if axis is not None), None)
            if shown is not None:
                places[number] = shown
        return places

    def _axis_of(self, nodes: list[int], value: int) -> int | None:
        """The axis of a value along which it shows just these neurons."""
        content = self.state.contents.get(value) or self.state.kept.get(value)
        if content is None or len(content.neurons) != 1:
            return None
        if len(nodes) not in self.state.shape(value):
            return None
        ids = self.state.pool.find(content.neurons[0].ids)
        for axis in range(ids.ndim):
            line = ids.movedim(axis, 0).reshape(ids.shape[axis], -1)
            if (line == line[:, :1]).all() and line[:, 0].tolist() == nodes:
                return axis
        return None


def _template(numbering: Numbering) -> GraphTemplate:
    """The nodes in ranges, and every tensor in blocks between them, in the order of their use."""
    trace = numbering.state.trace
    nodes = numbering.node_ranges()
    attention = attention_maps(numbering)
    blocks: list[Block] = []
    edge = 0
    by_tensor: dict[int, list[Use]] = {}
    for use in numbering.uses:
        by_tensor.setdefault(use.parameter, []).append(use)
    for parameter, uses in by_tensor.items():
        value = trace.values[parameter]
        parts = parts_of(value.dtype)
        for use in uses:
            for box in _boxes(numbering, use):
                type = use.type
                if type == EdgeType.LINEAR:
                    type = attention.get((box.source, box.destination), type)
                box = _both_parts(box) if parts == 2 else box
                blocks.append(_block(box, edge, value.names, type, nodes))
        edge += prod(value.shape) * parts
    for (type, _), pairs in numbering.constant.items():
        for box in _constant_boxes(numbering, pairs):
            blocks.append(_block(replace(box, offset=0), edge, (), type, nodes))
            edge += prod(box.sizes)
    values = [trace.values[parameter] for parameter in by_tensor]
    dtypes, shapes = {v.names[0]: v.dtype for v in values}, {v.names[0]: v.shape for v in values}
    groups = tuple(group.name for group in numbering.state.solved.spec.groups)
    return GraphTemplate(nodes, tuple(blocks), dtypes, shapes, trace.others, groups)


def _boxes(numbering: Numbering, use: Use) -> Iterator[Box]:
    """The edges of one use of a tensor."""
    x = use.entries.ids
    repeated = set(range(x.ndim)).difference(varying(x))
    x = only_first(x, repeated)
    entries = (
        Strided(int(x.storage_offset()), tuple(x.shape), tuple(x.stride()))
        if use.entries.strided
        else x.numpy()
    )
    source, destination = (
        only_varying(only_first(end, repeated)).numpy() for end in (use.source, use.destination)
    )
    ranges, positions = numbering.seats
    yield from boxes(
        entries,
        (ranges[source], ranges[destination]),
        (positions[source], positions[destination]),
    )


def _constant_boxes(numbering: Numbering, pairs: np.ndarray) -> Iterator[Box]:
    """Constant edges, between two ranges at a time."""
    ranges, positions = numbering.seats
    source, destination = pairs.T
    # pairs (3, 7) (4, 8) of ranges 0 -> 1 and (5, 9) of 0 -> 2: two stretches, each cut into boxes
    key = ranges[source] * len(numbering.members) + ranges[destination]
    pairs = pairs[np.lexsort((positions[source], positions[destination], key))]
    for between in np.split(pairs, np.flatnonzero(np.diff(np.sort(key))) + 1):
        source, destination = between.T
        yield from boxes(
            Strided(0, (len(between),), (1,)),
            (ranges[source], ranges[destination]),
            (positions[source], positions[destination]),
        )


_ROLE = {
    (True, True): Role.GROUP,
    (False, True): Role.DESTINATION,
    (True, False): Role.SOURCE,
    (False, False): Role.KERNEL,
}
"""What a digit counts, by whether the source and the destination node change with it."""


def _block(
    box: Box, edge: int, names: tuple[str, ...], type: EdgeType, nodes: tuple[NodeRange, ...]
) -> Block:
    """A box as a block, its digits in the tensor's own order."""
    # a weight (8, 3) whose rows go to 8 nodes and whose columns come from 3:
    #     sizes (8, 3)    strides (3, 1)    source (0, 1)    destination (1, 0)
    #     roles           destination, source
    order = sorted(range(len(box.sizes)), key=lambda i: -box.strides[i])
    sizes, strides, source, destination = (
        tuple(x[i] for i in order)
        for x in (box.sizes, box.strides, box.source_strides, box.destination_strides)
    )
    steps = zip(source, destination, strict=True)
    roles = tuple([_ROLE[from_ != 0, to != 0] for from_, to in steps])
    return Block(
        tensor=names[0] if names else None,
        names=names,
        start=edge + box.offset,
        shape=sizes,
        roles=roles,
        source=box.source,
        destination=box.destination,
        type=type,
        layer=nodes[box.destination].layer,
        strides=strides,
        source_start=box.source_start,
        source_strides=source,
        destination_start=box.destination_start,
        destination_strides=destination,
    ).simplified(nodes)


def _both_parts(box: Box) -> Box:
    """A box of complex entries as one of their parts, which are parallel edges: entry n has edges 2
    n and 2 n + 1."""
    return replace(
        box,
        offset=2 * box.offset,
        sizes=(*box.sizes, 2),
        strides=(*(2 * s for s in box.strides), 1),
        source_strides=(*box.source_strides, 0),
        destination_strides=(*box.destination_strides, 0),
    )
