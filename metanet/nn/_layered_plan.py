"""A template in the order in which data flows through its network, worked out once per template and
device.

::

    input ──w1──► hidden ──w2──► output        layer   0              2        3
                    ▲              ▲           nodes   input, b1, b2  hidden   output
                    b1             b2          inward  -              w1, b1   w2, b2
                                               outward w1, b1, b2     w2       -

Layer 0 holds what no edge reaches: inputs, and the source nodes of biases, norms and tables. A block
leads *inward* to the layer of its destination. It leads *outward* from the layer of its source too
where that is an earlier layer: on the way back, what follows is heard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..graph import GraphTemplate


@dataclass(frozen=True)
class Span:
    """Nodes on one side of a block, as rows of their layer.

    Attributes:
        layer: of all of them.
        site: number of their node range within the layer.
        first, count: rows of the whole range within the layer.
        index: which rows of the range are meant; ``None``: all, in turn.
    """

    layer: int
    site: int
    first: int
    count: int
    index: Int[Tensor, " nodes"] | None


@dataclass(frozen=True)
class Link:
    """A block as data flows through it.

    Attributes:
        block: its number.
        source, destination: the nodes that it joins, group by group.
        sizes: group, destination, source, kernel.
        row: its first row in the table of edges, which has one per kernel position.
    """

    block: int
    source: Span
    destination: Span
    sizes: tuple[int, int, int, int]
    row: int

    @property
    def fan_in(self) -> int:
        """How many of its entries reach one destination neuron."""
        return self.sizes[2] * self.sizes[3]

    @property
    def fan_out(self) -> int:
        """How many of its entries leave one source neuron."""
        return self.sizes[1] * self.sizes[3]


@dataclass(frozen=True)
class LayerPlan:
    """Nodes of one layer, range by range, and the blocks at which it listens.

    Attributes:
        nodes: their numbers in the template.
        site: for each node, the place of its range in the layer.
        sites: numbers of the ranges in the template.
        count, counts: nodes of every range, as a tensor and as integers.
        loops: ``(nodes, 1)``, 1 where an edge reaches the node that comes from its own layer or a
            later one: recurrent cells, ties.
        sends: ``(nodes, 1)``, 1 where an edge leaves the node for a later layer.
        inward, outward: blocks that reach the layer, and those that leave it for a later one.
    """

    nodes: Int[Tensor, " nodes"]
    site: Int[Tensor, " nodes"]
    sites: Int[Tensor, " sites"]
    count: Int[Tensor, " sites"]
    counts: tuple[int, ...]
    loops: Float[Tensor, "nodes 1"]
    sends: Float[Tensor, "nodes 1"]
    inward: tuple[Link, ...]
    outward: tuple[Link, ...]


@dataclass(frozen=True)
class LayeredPlan:
    """The layers of one template.

    Attributes:
        layers: from the inputs on.
        edge_row: for each edge of the template its row in the table of edges.
    """

    layers: tuple[LayerPlan, ...]
    edge_row: Int[Tensor, " edges"]


_PLANS: WeakKeyDictionary[GraphTemplate, dict[torch.device, LayeredPlan]] = WeakKeyDictionary()


def layered_plan(template: GraphTemplate, device: torch.device) -> LayeredPlan:
    """The plan of a template, from the cache if it was asked for before."""
    plans = _PLANS.setdefault(template, {})
    if device not in plans:
        plans[device] = _make(template, device)
    return plans[device]


def _make(template: GraphTemplate, device: torch.device) -> LayeredPlan:
    places = _Places(template)
    links = _links(template, places, device)
    looping = torch.zeros(template.num_nodes, 1)
    sending = torch.zeros(template.num_nodes, 1)
    for link in links:
        block = template.blocks[link.block]
        if link.source.layer < link.destination.layer:
            sending[template.nodes[block.source].start + block.nodes("source")] = 1
        else:
            looping[template.nodes[block.destination].start + block.nodes("destination")] = 1
    layers = []
    for number, sites in enumerate(places.layers):
        ranges = [template.nodes[site] for site in sites]
        numbers = [torch.arange(r.start, r.stop) for r in ranges]
        nodes = torch.cat([torch.empty(0, dtype=torch.long), *numbers])
        counts = tuple(r.count for r in ranges)
        count = torch.tensor(counts, dtype=torch.long)
        outward = [s for s in links if s.source.layer == number < s.destination.layer]
        layers.append(
            LayerPlan(
                nodes=nodes.to(device),
                site=torch.arange(len(sites)).repeat_interleave(count).to(device),
                sites=torch.tensor(sites, dtype=torch.long, device=device),
                count=count.to(device),
                counts=counts,
                loops=looping[nodes].to(device),
                sends=sending[nodes].to(device),
                inward=tuple(s for s in links if s.destination.layer == number),
                outward=tuple(outward),
            )
        )
    return LayeredPlan(tuple(layers), _edge_rows(template, links).to(device))


class _Places:
    """Where every node range stands: its layer, and its place and first row in it."""

    def __init__(self, template: GraphTemplate) -> None:
        reached = {block.destination for block in template.blocks}
        self.layers: list[list[int]] = [[] for _ in range(template.depth + 2)]
        self.place: list[tuple[int, int, int]] = []
        rows = [0] * len(self.layers)
        for number, nodes in enumerate(template.nodes):
            layer = 1 + nodes.layer if number in reached else 0
            self.place.append((layer, len(self.layers[layer]), rows[layer]))
            self.layers[layer].append(number)
            rows[layer] += nodes.count


def _links(template: GraphTemplate, places: _Places, device: torch.device) -> list[Link]:
    links = []
    row = 0
    for number, block in enumerate(template.blocks):

        def span(side: str, site: int) -> Span:
            count = template.nodes[site].count
            nodes = block.nodes(side)  # noqa: B023 (called in this round of the loop)
            whole = torch.equal(nodes, torch.arange(count))
            layer, place, first = places.place[site]
            return Span(layer, place, first, count, None if whole else nodes.to(device))

        source = span("source", block.source)
        destination = span("destination", block.destination)
        links.append(Link(number, source, destination, block.dense_shape, row))
        row += block.size("kernel")
    return links


def _edge_rows(template: GraphTemplate, links: Sequence[Link]) -> Int[Tensor, " edges"]:
    rows = torch.empty(1, template.num_edges, 1, dtype=torch.long)
    for link in links:
        block = template.blocks[link.block]
        group, destination, source, kernel = block.dense_shape
        own = torch.arange(link.row, link.row + kernel)
        cells = own.expand(1, group, destination, source, kernel)[..., None]
        rows[:, block.edges()] = block.flat(cells)
    return rows.view(-1)
