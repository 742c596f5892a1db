"""Which linear maps make queries, keys and values, and which read what attention makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..template._schema import EdgeType
from ._numbering import Numbering

Between = tuple[int, int]
"""A source range and a destination range."""


def attention_maps(numbering: Numbering) -> dict[Between, EdgeType]:
    """The type of every linear map that takes part in attention, by the ranges it lies between.

    Between the map and the head stand at most sums and products (rotary positions, norms per head)::

        x --QUERY--> q --(rotary)--> q' --\\
        x --KEY----> k --(rotary)--> k' ---> heads --\\
        x --VALUE--> v ------------------------------> mixed --ATTENTION_OUTPUT--> y
    """
    state = numbering.state
    maps = _Maps(
        [
            (numbering.ranges_of(use.source), numbering.ranges_of(use.destination))
            for use in numbering.uses
            if use.type == EdgeType.LINEAR
        ],
        _above(numbering),
    )

    def ranges(nodes: Tensor) -> set[int]:
        return numbering.ranges_of(numbering.root(nodes))

    types: dict[Between, EdgeType] = {}
    for query, key in state.heads:
        types.update(dict.fromkeys(maps.that_make(ranges(query)), EdgeType.QUERY))
        types.update(dict.fromkeys(maps.that_make(ranges(key)), EdgeType.KEY))
    for value, mixed in state.mixes:
        types.update(dict.fromkeys(maps.that_make(ranges(value)), EdgeType.VALUE))
        types.update(dict.fromkeys(maps.that_read(ranges(mixed)), EdgeType.ATTENTION_OUTPUT))
    return types


def _above(numbering: Numbering) -> dict[int, set[int]]:
    """For each range those that feed it without a tensor, attention's own edges apart."""
    above: dict[int, set[int]] = {}
    number, count = numbering.seats.range, len(numbering.members)
    for (type, _), pairs in numbering.constant.items():
        if type not in (EdgeType.COUPLING, EdgeType.TO_HEAD):
            keys = np.unique(number[pairs[:, 0]] * count + number[pairs[:, 1]])
            for source, destination in zip(keys // count, keys % count, strict=True):
                above.setdefault(int(destination), set()).add(int(source))
    return above


@dataclass(frozen=True)
class _Maps:
    """Linear maps, each by the ranges that it reads and makes, and what lies between them."""

    maps: list[tuple[set[int], set[int]]]
    above: Mapping[int, set[int]]

    def that_make(self, ranges: set[int]) -> list[Between]:
        """The maps that make some ranges, or what those are sums and products of."""
        between: list[Between] = []
        todo, seen = set(ranges), set()
        while todo:
            r = todo.pop()
            seen.add(r)
            sources = [reads for reads, makes in self.maps if r in makes]
            between += [(source, r) for reads in sources for source in reads]
            if not sources:
                todo |= self.above.get(r, set()) - seen
        return between

    def that_read(self, ranges: set[int]) -> list[Between]:
        """The maps that read some ranges."""
        return [
            (r, destination)
            for r in ranges
            for reads, makes in self.maps
            if r in reads
            for destination in makes
        ]
