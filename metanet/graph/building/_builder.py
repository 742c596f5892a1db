"""From a solved recording to the graph template: the nodes in their final order, the tensors as
blocks of edges."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from ...symmetry import Derivation
from ...tracing import Trace
from ..template._blocks import Block, NodeRange
from ._boxes import Box, boxes
from ._flows import distinct, unique_pairs, varies
from ._leftovers import place_leftovers
from ._pool import Site, stand_ins
from ..template._schema import ACTIVATIONS, EdgeType, NodeType, parts_of
from ..template._template import GraphTemplate
from ._uses import Use
from ._walk import Walk

_SOURCES = (
    NodeType.BIAS,
    NodeType.SCALE,
    NodeType.MEAN,
    NodeType.VARIANCE,
    NodeType.ROW,
    NodeType.ENTRYWISE,
)


@dataclass
class TemplateBuilder:
    """Builds the template of one architecture; ``warnings`` says which tensors found no place."""

    trace: Trace
    solved: Derivation
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def walk(self) -> Walk:
        """The pass over the recording, and everything it left out placed by the symmetries."""
        walk = Walk(self.trace, self.solved).run()
        if walk.summed_inputs and walk.pool.inputs_united():
            walk = Walk(self.trace, self.solved).run(walk)
        self.warnings += place_leftovers(walk)
        return walk

    @cached_property
    def template(self) -> GraphTemplate:
        """The template; building it takes the time that the pass takes."""
        return self._numbering.template()

    @cached_property
    def _numbering(self) -> "_Numbering":
        return _Numbering(self.walk)

    def site_values(self) -> dict[int, tuple[int, int]]:
        """For each node range of neurons that lie along one axis: number of the value they show in,
        and that axis.

        The value is taken after the site's activation, where it has one.
        """
        numbering, found = self._numbering, {}
        for number, nodes in enumerate(numbering.members):
            own = (
                self.walk.pool.value.get(nodes[0]) if not numbering.site_of(nodes[0]).raw else None
            )
            for value in (*self.trace.outputs, *self.trace.inputs, own):
                axis = self._axis_of(nodes, value)
                if axis is not None:
                    found[number] = (value, axis)
                    break
        return found

    def _axis_of(self, nodes: list[int], value: int | None) -> int | None:
        """The axis of a value along which it shows just these neurons."""
        flow = self.walk.flows.get(value) or self.walk.kept.get(value)
        if (
            flow is None
            or len(flow.neurons) != 1
            or len(nodes) not in self.trace.values[value].shape
        ):
            return None
        ids = self.walk.pool.find(flow.neurons[0].ids)
        for axis in range(ids.ndim):
            line = ids.movedim(axis, 0).reshape(ids.shape[axis], -1)
            if (line == line[:, :1]).all() and line[:, 0].tolist() == nodes:
                return axis
        return None


class _Numbering:
    """Nodes that take part, in ranges of like nodes; tensors as boxes between ranges."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.pool = walk, walk.pool
        self.roots = walk.pool.roots().copy()
        self.uses = [replace(u, source=self._root(u.source), destination=self._root(u.destination))
                     for u in walk.uses.found]  # fmt: skip
        self.constant = self._constant_edges()

    def _root(self, ids: Tensor) -> Tensor:
        return stand_ins(self.roots, ids)

    def _constant_edges(self) -> dict[tuple[EdgeType, int], np.ndarray]:
        """Pairs by type and operand, each once; what became a tie of a neuron to itself goes."""
        found: dict[tuple[EdgeType, int], list[Tensor]] = {}
        for type, operand, source, destination in self.walk.uses.constant:
            pairs = torch.stack([self._root(source), self._root(destination)], 1)
            if type in (EdgeType.TIED, EdgeType.SHARE):
                pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            found.setdefault((type, operand), []).append(pairs)
        unique = {t: unique_pairs(*torch.cat(p).T)[0].numpy() for t, p in sorted(found.items())}
        return {t: p for t, p in unique.items() if len(p)}

    def site_of(self, node: int) -> Site:
        """The site of a node that stands for others."""
        return self.pool.sites[self.site[node]]

    # ---------------------------------------------------------------- nodes

    @cached_property
    def site(self) -> np.ndarray:
        """For every node the number of the site it was made with."""
        return self.pool.site_number(torch.arange(len(self.roots))).numpy()

    @cached_property
    def activation(self) -> np.ndarray:
        """For every node that stands for others what follows it."""
        out = np.zeros(len(self.roots), dtype=np.int64)
        for node, number in reversed(self.pool.activation.items()):
            out[self.roots[node]] = number
        return out

    def _sides(self) -> Iterator[np.ndarray]:
        for u in self.uses:
            there = None if u.entries.strided else u.entries.ids >= 0
            for side in (u.source, u.destination):
                yield distinct(side if there is None else torch.where(there, side, -1)).numpy()
        for pairs in self.constant.values():
            by_site = self.site[pairs[:, 0]] * len(self.pool.sites) + self.site[pairs[:, 1]]
            order = by_site.argsort(kind="stable")
            for own in np.split(pairs[order], np.flatnonzero(np.diff(by_site[order])) + 1):
                for column in (0, 1):
                    yield np.unique(own[:, column])

    @cached_property
    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """For every node the number of its range (-1: it takes no part) and its position there.

        A range holds nodes of one site, one group and one fate: whatever touches one of them
        touches all.
        """
        sides = [s[s >= 0] for s in self._sides()]
        live = np.unique(np.concatenate(sides)) if sides else np.empty(0, dtype=np.int64)
        outputs = self._outputs()
        names = {g: i for i, g in enumerate(dict.fromkeys(self.pool.groups))}
        group = np.array([names[g] for g in self.pool.groups], dtype=np.int64)
        label = np.zeros(len(live), dtype=np.int64)
        for key in (self.site[live], group[live], np.isin(live, outputs), self.activation[live]):
            _, label = np.unique(label * (int(key.max(initial=0)) + 1) + key, return_inverse=True)
        sizes = np.bincount(label).tolist()
        for side in sides:
            at = np.searchsorted(live, side)
            touched, inside = np.unique(label[at], return_counts=True)
            for old, count in zip(touched.tolist(), inside.tolist(), strict=True):
                if count < sizes[old]:
                    label[at[label[at] == old]] = len(sizes)
                    sizes[old] -= count
                    sizes.append(count)
        first = np.full(len(sizes), len(self.roots), dtype=np.int64)
        np.minimum.at(first, label, live)
        types = (
            np.array([self.pool.sites[i].type in _SOURCES for i in self.site[first]])
            if len(live)
            else np.empty(0)
        )
        order = np.lexsort((first, types))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        number = np.full(len(self.roots), -1, dtype=np.int64)
        number[live] = rank[label]
        position = np.full(len(self.roots), -1, dtype=np.int64)
        by_range = np.lexsort((live, number[live]))
        starts = np.concatenate([[0], np.cumsum(np.bincount(number[live], minlength=len(sizes)))])
        position[live[by_range]] = np.arange(len(live)) - starts[number[live[by_range]]]
        return number, position

    @cached_property
    def members(self) -> list[list[int]]:
        """The nodes of every range, in order."""
        number, _ = self.ranges
        live = np.flatnonzero(number >= 0)
        live = live[number[live].argsort(kind="stable")]
        cuts = np.flatnonzero(np.diff(number[live])) + 1
        return [part.tolist() for part in np.split(live, cuts)] if len(live) else []

    def _outputs(self) -> np.ndarray:
        found = []
        for number in self.walk.trace.outputs:
            flow = self.walk.flows.get(number)
            for n in flow.neurons if flow else ():
                if not n.hidden:
                    found.append(distinct(self._root(n.ids)).numpy())
        ids = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
        return ids[[self.site_of(i).type != NodeType.INPUT for i in ids]] if len(ids) else ids

    def _node_ranges(self) -> tuple[NodeRange, ...]:
        out, start, outputs = [], 0, set(self._outputs().tolist())
        for nodes in self.members:
            site = self.site_of(nodes[0])
            out.append(NodeRange(
                name=site.name, start=start, count=len(nodes),
                type=NodeType.OUTPUT if nodes[0] in outputs else site.type,
                layer=site.layer, activation=ACTIVATIONS[self.activation[nodes[0]]],
                group=self.pool.groups[nodes[0]],
            ))  # fmt: skip
            start += len(nodes)
        return tuple(out)

    # ---------------------------------------------------------------- blocks

    def template(self) -> GraphTemplate:
        trace = self.walk.trace
        number, position = self.ranges
        nodes = self._node_ranges()
        blocks: list[Block] = []
        edge = 0
        kinds = self._attention(number)
        by_tensor: dict[int, list[Use]] = {}
        for u in self.uses:
            by_tensor.setdefault(u.parameter, []).append(u)
        for parameter, uses in by_tensor.items():
            value = trace.values[parameter]
            for u in uses:
                for box in self._boxes(u, number, position):
                    type = kinds.get((u.type, box.source, box.destination), u.type)
                    box = _both_parts(box) if parts_of(value.dtype) == 2 else box
                    blocks.append(_block(box, edge, value.names, type, nodes))
            edge += prod(value.shape) * parts_of(value.dtype)
        for (type, _), pairs in self.constant.items():
            for box in self._constant_boxes(pairs, number, position):
                blocks.append(_block(replace(box, offset=0), edge, (), type, nodes))
                edge += prod(box.sizes)
        tensors = {trace.values[p].names[0]: trace.values[p] for p in by_tensor}
        groups = tuple(g.name for g in self.walk.solved.spec.groups)
        return GraphTemplate(
            nodes, tuple(blocks), {n: v.dtype for n, v in tensors.items()}, {n: v.shape for n, v in tensors.items()},
            trace.others, groups,
        )  # fmt: skip

    def _boxes(self, use: Use, number: np.ndarray, position: np.ndarray) -> Iterator[Box]:
        x = use.entries.ids
        axes = [a for a in range(x.ndim) if varies(x, a)]
        keep = tuple(slice(None) if a in axes else slice(0, 1) for a in range(x.ndim))
        x = x[keep]
        ends = [_narrow(side[keep]) for side in (use.source, use.destination)]
        entries = (
            (x.storage_offset(), tuple(x.shape), tuple(x.stride()))
            if use.entries.strided
            else x.numpy()
        )
        yield from boxes(entries, tuple(number[e] for e in ends), tuple(position[e] for e in ends))

    def _constant_boxes(
        self, pairs: np.ndarray, number: np.ndarray, position: np.ndarray
    ) -> Iterator[Box]:
        key = number[pairs[:, 0]] * len(self.members) + number[pairs[:, 1]]
        pairs = pairs[np.lexsort((position[pairs[:, 0]], position[pairs[:, 1]], key))]
        for own in np.split(pairs, np.flatnonzero(np.diff(np.sort(key))) + 1):
            r, p = number[own], position[own]
            yield from boxes((0, (len(own),), (1,)), (r[:, 0], r[:, 1]), (p[:, 0], p[:, 1]))

    def _attention(self, number: np.ndarray) -> dict[tuple[EdgeType, int, int], EdgeType]:
        """Which linear maps make queries, keys and values, and which read what attention makes of
        them.

        Between the map and the head stand at most sums and products (rotary positions, norms per
        head).
        """
        walk, linear = self.walk, {}
        ends = [(u, _ranges_of(u.source, number), _ranges_of(u.destination, number)) for u in self.uses
                if u.type == EdgeType.LINEAR]  # fmt: skip
        above: dict[int, set[int]] = {}
        for (type, _), pairs in self.constant.items():
            if type in (EdgeType.COUPLING, EdgeType.TO_HEAD):
                continue
            for key in np.unique(
                number[pairs[:, 0]] * len(self.members) + number[pairs[:, 1]]
            ).tolist():
                above.setdefault(key % len(self.members), set()).add(key // len(self.members))

        def name(nodes: Tensor, type: EdgeType) -> None:
            todo, seen = _ranges_of(self._root(nodes), number), set()
            while todo:
                r = todo.pop()
                seen.add(r)
                makers = [(s, d) for _, s, d in ends if r in d]
                for sources, _ in makers:
                    linear.update({(EdgeType.LINEAR, s, r): type for s in sources})
                if not makers:
                    todo |= above.get(r, set()) - seen

        for query, key in walk.heads:
            name(query, EdgeType.QUERY)
            name(key, EdgeType.KEY)
        for value, mixed in walk.mixes:
            name(value, EdgeType.VALUE)
            for r in _ranges_of(self._root(mixed), number):
                for _, sources, destinations in ends:
                    if r in sources:
                        linear.update(
                            {
                                (EdgeType.LINEAR, r, d): EdgeType.ATTENTION_OUTPUT
                                for d in destinations
                            }
                        )
        return linear


def _ranges_of(ids: Tensor, number: np.ndarray) -> set[int]:
    return set(number[distinct(ids).numpy()].tolist()) - {-1}


def _block(
    box: Box, edge: int, names: tuple[str, ...], type: EdgeType, nodes: tuple[NodeRange, ...]
) -> Block:
    order = sorted(
        range(len(box.sizes)), key=lambda i: -box.strides[i]
    )  # digits as the tensor counts them
    sizes, strides, source, destination = (
        tuple(x[i] for i in order)
        for x in (box.sizes, box.strides, box.source_strides, box.destination_strides)
    )
    roles = tuple(
        "group" if s and d else "destination" if d else "source" if s else "kernel"
        for s, d in zip(source, destination, strict=True)
    )
    return Block(
        tensor=names[0] if names else None, names=names, start=edge + box.offset, shape=sizes, roles=roles,
        source=box.source, destination=box.destination, type=type, layer=nodes[box.destination].layer,
        strides=strides, source_start=box.source_start, source_strides=source,
        destination_start=box.destination_start, destination_strides=destination,
    ).simplified(nodes)  # fmt: skip


def _both_parts(box: Box) -> Box:
    """A box of complex entries as one of their parts, which are parallel edges: entry n has edges 2
    n and 2 n + 1."""
    return replace(
        box, offset=2 * box.offset, sizes=(*box.sizes, 2), strides=(*(2 * s for s in box.strides), 1),
        source_strides=(*box.source_strides, 0), destination_strides=(*box.destination_strides, 0),
    )  # fmt: skip


def _narrow(ids: Tensor) -> np.ndarray:
    """The same, with axes of size 1 where nothing varies."""
    return ids[
        tuple(slice(None) if varies(ids, a) else slice(0, 1) for a in range(ids.ndim))
    ].numpy()
