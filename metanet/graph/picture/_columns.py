"""Where the node ranges of a graph stand in a picture: columns by depth, and lanes for edges that
pass some of them by.

A small Sugiyama layout: every edge that spans several columns gets a lane through those between,
one for all edges of a source; ranges and lanes of a column are ordered by where their neighbours
are, and then set as near to them as their heights allow, so that a residual stream runs straight
and its branches stand aside.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..template._blocks import NodeRange
from ..template._schema import NodeType
from ..template._template import GraphTemplate

_SWEEPS = 12
_STIFF = 4.0  # how much more a lane holds its place than a range does
_PULL = 0.4  # towards the middle, so that a long stream does not drift away

Item = tuple[int, int]  # a range in its own column, or its lane in a later one


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns and heights; y runs downwards from 0.

    Attributes:
        column: of every range that stands in one.
        y: centre of every range that stands in a column.
        lanes: ``(range, column) -> y`` of the lane of that range's edges.
        hosts: source nodes of one tensor that stand beside the range they act on: ``source ->
            range``.
        loose: ranges that no edge joins to another one.
        height: of the whole.
    """

    column: Mapping[int, int]
    y: Mapping[int, float]
    lanes: Mapping[Item, float]
    hosts: Mapping[int, int]
    loose: tuple[int, ...]
    height: float

    @property
    def columns(self) -> int:
        return max(self.column.values(), default=-1) + 1


def links(template: GraphTemplate) -> set[tuple[int, int]]:
    """Pairs of different ranges that edges join."""
    return {(b.source, b.destination) for b in template.blocks if b.source != b.destination}


def seats(template: GraphTemplate) -> tuple[dict[int, int], dict[int, int], tuple[int, ...]]:
    """Which ranges stand in which column, which beside another, and which nowhere: see
    :class:`Layout`."""
    after, fed, joined = defaultdict(list), set(), set()
    for source, destination in sorted(links(template)):
        after[source].append(destination)
        fed.add(destination)
        joined |= {source, destination}
    ranges = template.nodes
    no_inputs = [i for i, nodes in enumerate(ranges) if nodes.type is not NodeType.INPUT]
    loose = tuple([i for i in no_inputs if i not in joined])
    first = [i for i in no_inputs if i in joined and i not in fed]
    fed_by = {i: [j for j in after[i] if j in fed] for i in first if ranges[i].count == 1}
    hosts = _hosts(ranges, {i: near for i, near in fed_by.items() if near})
    seated = sorted(set(range(len(ranges))).difference(hosts, loose))
    layer = {i: ranges[i].layer for i in seated}
    for i in layer.keys() & after.keys():
        before = min(ranges[j].layer for j in after[i]) - 1
        if i in first:  # rows of a table stand right before what they are added to
            layer[i] = before
        elif ranges[i].type is NodeType.INPUT:  # those that are looked up, before what is found
            layer[i] = min(layer[i], before)
    # layers 0, 2, 5 are the columns 0, 1, 2
    rank = {number: column for column, number in enumerate(sorted(set(layer.values())))}
    column = {i: rank[layer[i]] for i in seated}
    return column, hosts, loose


def _hosts(ranges: Sequence[NodeRange], near: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Beside which of the ranges that it acts on a source node stands.

    Where there is room; else beside the last of them.
    """
    hosts: dict[int, int] = {}
    beside: Counter[int] = Counter()
    for source, acted_on in near.items():
        host = min(acted_on, key=lambda j: (beside[j], -ranges[j].layer, -j))
        hosts[source] = host
        beside[host] += 1
    return hosts


def arrange(
    template: GraphTemplate, above: Sequence[float], below: Sequence[float], lane: float
) -> Layout:
    """Lay a template out.

    Args:
        above, below: what each range needs on both sides of its centre.
        lane: half of what a lane needs.
    """
    column, hosts, loose = seats(template)
    items: dict[Item, int] = {(i, column[i]): column[i] for i in column}
    chains: list[tuple[Item, Item]] = []
    for source, destination in sorted(links(template)):
        if source not in column or destination not in column:
            continue
        chain = [(source, c) for c in range(column[source], column[destination])] + [
            (destination, column[destination])
        ]
        if len(chain) > 1:
            items.update({item: item[1] for item in chain})
            chains += zip(chain[:-1], chain[1:], strict=True)
    field_ = _Field(items, column, list(dict.fromkeys(chains)), above, below, lane)
    y = field_.solve()
    top = min((y[i] - field_.up(i) for i in items), default=0.0)
    bottom = max((y[i] + field_.down(i) for i in items), default=0.0)
    return Layout(
        column=column,
        y={i: y[i, column[i]] - top for i in column},
        lanes={item: y[item] - top for item in items if not field_.is_range(item)},
        hosts=hosts,
        loose=loose,
        height=bottom - top,
    )


@dataclass
class _Field:
    """The sweeps: every column in turn is ordered and set by its neighbours."""

    items: Mapping[Item, int]
    column: Mapping[int, int]
    chains: Sequence[tuple[Item, Item]]
    above: Sequence[float]
    below: Sequence[float]
    lane: float
    _before: dict[Item, list[Item]] = field(default_factory=lambda: defaultdict(list))
    _after: dict[Item, list[Item]] = field(default_factory=lambda: defaultdict(list))

    def is_range(self, item: Item) -> bool:
        return self.column[item[0]] == item[1]

    def up(self, item: Item) -> float:
        return self.above[item[0]] if self.is_range(item) else self.lane

    def down(self, item: Item) -> float:
        return self.below[item[0]] if self.is_range(item) else self.lane

    def solve(self) -> dict[Item, float]:
        for a, b in self.chains:
            self._after[a].append(b)
            self._before[b].append(a)
        columns: dict[int, list[Item]] = defaultdict(list)
        for item in sorted(self.items):
            columns[item[1]].append(item)
        y = dict.fromkeys(self.items, 0.0)
        for sweep in range(_SWEEPS):
            backwards = sweep % 2 == 1
            sides = [self._after if backwards else self._before]
            if sweep >= _SWEEPS - 4:
                sides = [self._before, self._after]
            for column in sorted(columns, reverse=backwards):
                y.update(self._settled(columns[column], y, sides))
        return y

    def _settled(
        self, items: list[Item], y: Mapping[Item, float], sides: Sequence[Mapping[Item, list[Item]]]
    ) -> dict[Item, float]:
        """The heights of a column's items, near to their neighbours; the items are put in order."""
        means = {}
        for item in items:
            near = [other for side in sides for other in side[item]]
            means[item] = self._mean(item, y, near)
        items.sort(key=lambda item: (round(means[item], 6), self.is_range(item)))
        return self._spread(items, means)

    def _mean(self, item: Item, y: Mapping[Item, float], near: Sequence[Item]) -> float:
        if not near:
            return y[item]
        weights = [1.0 if self.is_range(other) else _STIFF for other in near]
        return sum(w * y[other] for w, other in zip(weights, near, strict=True)) / (
            sum(weights) + _PULL
        )

    def _spread(self, ordered: Sequence[Item], wanted: Mapping[Item, float]) -> dict[Item, float]:
        """The positions nearest to the wanted ones in this order without overlap: pool adjacent
        violators."""
        offset, offsets = 0.0, []
        for i, item in enumerate(ordered):
            offset += self.up(item) + self.down(ordered[i - 1]) if i else 0.0
            offsets.append(offset)
        pools: list[list[float]] = []  # mean, weight, how many
        for item, shift in zip(ordered, offsets, strict=True):
            pools.append([wanted[item] - shift, 1.0 if self.is_range(item) else _STIFF, 1])
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                mean, weight, count = pools.pop()
                last = pools[-1]
                last[0] = (last[0] * last[1] + mean * weight) / (last[1] + weight)
                last[1] += weight
                last[2] += count
        means = [mean for mean, _, count in pools for _ in range(int(count))]
        return {
            item: mean + shift for item, mean, shift in zip(ordered, means, offsets, strict=True)
        }
