"""The nodes in their final order: ranges of nodes that share one fate."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..template._blocks import NodeRange
from ..template._schema import ACTIVATIONS, EdgeType, NodeType
from ._ids import NONE, distinct, unique_pairs
from ._pool import Site, stand_ins
from ._state import State

_SOURCES = (
    NodeType.BIAS,
    NodeType.SCALE,
    NodeType.MEAN,
    NodeType.VARIANCE,
    NodeType.ROW,
    NodeType.ENTRYWISE,
)


class Seats(NamedTuple):
    """For every node the number of its range (:data:`NONE`: it takes no part), and its position
    there."""

    range: np.ndarray
    position: np.ndarray


class Numbering:
    """Nodes that take part, in ranges of like nodes.

    Attributes:
        uses: the edges of parameters, between nodes that stand for others.
        constant: pairs of nodes by type and operand, each once.
    """

    def __init__(self, state: State) -> None:
        self.state, self.pool = state, state.pool
        self.roots = state.pool.roots().copy()
        self.uses = [
            replace(use, source=self.root(use.source), destination=self.root(use.destination))
            for use in state.uses.of_parameters
        ]
        self.constant = self._constant_edges()

    def root(self, ids: Tensor) -> Tensor:
        """The nodes that stand for some."""
        return stand_ins(self.roots, ids)

    def _constant_edges(self) -> dict[tuple[EdgeType, int], np.ndarray]:
        """What became a tie of a neuron to itself goes."""
        by_kind: dict[tuple[EdgeType, int], list[Tensor]] = {}
        for type, operand, source, destination in self.state.uses.constant:
            pairs = torch.stack([self.root(source), self.root(destination)], 1)
            if type in (EdgeType.TIED, EdgeType.SHARE):
                pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            by_kind.setdefault((type, operand), []).append(pairs)
        edges = {}
        for kind, pairs_of_kind in sorted(by_kind.items()):
            unique, _ = unique_pairs(*torch.cat(pairs_of_kind).unbind(1))
            if len(unique):
                edges[kind] = unique.numpy()
        return edges

    # ---------------------------------------------------------------- what is known of a node

    def site_of(self, node: int) -> Site:
        """The site of a node that stands for others."""
        return self.pool.sites[self.site[node]]

    @cached_property
    def site(self) -> np.ndarray:
        """For every node the number of the site it was made with."""
        return self.pool.site_number(torch.arange(len(self.roots))).numpy()

    @cached_property
    def activation(self) -> np.ndarray:
        """For every node that stands for others what follows it."""
        numbers = np.zeros(len(self.roots), dtype=np.int64)
        for node, number in reversed(self.pool.activation.items()):
            numbers[self.roots[node]] = number
        return numbers

    @cached_property
    def outputs(self) -> np.ndarray:
        """The nodes that the network's outputs show, its inputs apart."""
        shown = [np.empty(0, dtype=np.int64)]
        for number in self.state.trace.outputs:
            for neurons in self.state.content(number).neurons:
                if not neurons.hidden:
                    shown.append(distinct(self.root(neurons.ids)).numpy())
        nodes = np.unique(np.concatenate(shown))
        is_input = [self.site_of(node).type == NodeType.INPUT for node in nodes.tolist()]
        return nodes[~np.array(is_input, dtype=bool)]

    # ---------------------------------------------------------------- ranges

    @cached_property
    def seats(self) -> Seats:
        """Where every node sits.

        A range holds nodes of one site, one group and one fate: whatever touches one of them
        touches all. Sites are cut where an end of an edge holds only some of their nodes::

            site of a fused map      q q q q k k k k v v v v
            ends of edges            ....... ....... .......      queries, keys, values
            ranges                   0 0 0 0 1 1 1 1 2 2 2 2
        """
        ends = [end[end >= 0] for end in self._ends()]
        live = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *ends]))
        label, count = self._cut(live, ends)
        number = np.full(len(self.roots), NONE, dtype=np.int64)
        number[live] = self._order(live, label, count)[label]
        position = np.full(len(self.roots), NONE, dtype=np.int64)
        by_range = live[np.lexsort((live, number[live]))]
        sizes = np.bincount(number[live], minlength=count)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        position[by_range] = np.arange(len(live)) - starts[number[by_range]]
        return Seats(number, position)

    def _ends(self) -> Iterator[np.ndarray]:
        """The nodes of either side of all edges that were made together."""
        for use in self.uses:
            for end in (use.source, use.destination):
                if not use.entries.strided:
                    end = torch.where(use.entries.ids >= 0, end, NONE)
                yield distinct(end).numpy()
        for pairs in self.constant.values():
            by_site = self.site[pairs[:, 0]] * len(self.pool.sites) + self.site[pairs[:, 1]]
            for between in _runs(pairs, by_site):
                yield from map(np.unique, between.T)

    def _cut(self, live: np.ndarray, ends: list[np.ndarray]) -> tuple[np.ndarray, int]:
        """A label for every live node, the same for those of one range, and how many labels there
        are."""
        names = {group: i for i, group in enumerate(dict.fromkeys(self.pool.groups))}
        group = np.array([names[g] for g in self.pool.groups], dtype=np.int64)
        is_output = np.isin(live, self.outputs)
        label = np.zeros(len(live), dtype=np.int64)
        for key in (self.site[live], group[live], is_output, self.activation[live]):
            both = label * (int(key.max(initial=0)) + 1) + key
            _, label = np.unique(both, return_inverse=True)
        sizes = np.bincount(label).tolist()
        for end in ends:
            at = np.searchsorted(live, end)
            touched, inside = np.unique(label[at], return_counts=True)
            for old, count in zip(touched.tolist(), inside.tolist(), strict=True):
                if count < sizes[old]:  # only some of the range: these are one of their own
                    label[at[label[at] == old]] = len(sizes)
                    sizes[old] -= count
                    sizes.append(count)
        return label, len(sizes)

    def _order(self, live: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
        """For every label the number of its range: neurons as they were made, then source nodes."""
        first = np.full(count, len(self.roots), dtype=np.int64)
        np.minimum.at(first, label, live)
        is_source = [self.pool.sites[i].type in _SOURCES for i in self.site[first]]
        order = np.lexsort((first, np.array(is_source, dtype=bool)))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return rank

    @cached_property
    def members(self) -> list[list[int]]:
        """The nodes of every range, in order."""
        number = self.seats.range
        live = np.flatnonzero(number >= 0)
        return [nodes.tolist() for nodes in _runs(live, number[live])]

    def ranges_of(self, ids: Tensor) -> set[int]:
        """The ranges that some nodes are in."""
        return set(self.seats.range[distinct(ids).numpy()].tolist()) - {NONE}

    def node_ranges(self) -> tuple[NodeRange, ...]:
        """The ranges as the template has them."""
        ranges: list[NodeRange] = []
        outputs = set(self.outputs.tolist())
        start = 0
        for nodes in self.members:
            first = nodes[0]
            site = self.site_of(first)
            ranges.append(
                NodeRange(
                    name=site.name,
                    start=start,
                    count=len(nodes),
                    type=NodeType.OUTPUT if first in outputs else site.type,
                    layer=site.layer,
                    activation=ACTIVATIONS[self.activation[first]],
                    group=self.pool.groups[first],
                )
            )
            start += len(nodes)
        return tuple(ranges)


def _runs(items: np.ndarray, key: np.ndarray) -> Iterator[np.ndarray]:
    """The items of each key, in the order of keys."""
    if len(items):
        order = key.argsort(kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        yield from np.split(items[order], cuts)
