"""The dense form of a layered batch: stacks of graphs of one architecture, by products of blocks."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..graph import GraphStack
from ._layered import Layered, Views
from ._layered_plan import LayerPlan, Link, Span, layered_plan


class DenseLayered(Layered):
    """The nodes of a layer stack by stack, graph by graph.

    Args:
        stacks: of graphs.
        values: of every stack, ``(graphs, edges)`` in its template's order, finite.
    """

    def __init__(
        self, stacks: Sequence[GraphStack], values: Sequence[Float[Tensor, "_ _"]]
    ) -> None:
        self._stacks = []
        starts = _Starts()
        for stack, value in zip(stacks, values, strict=True):
            self._stacks.append(_Stack(stack, value, starts))
            starts = starts.after(self._stacks[-1])
        self.depth = len(starts.layers)
        numbers = range(self.depth)
        self.loops = [self._of_nodes(n, lambda layer: layer.loops) for n in numbers]
        self.sends = [self._of_nodes(n, lambda layer: layer.sends) for n in numbers]

    def _in(self, layer: int) -> list["_Stack"]:
        """The stacks that reach so deep."""
        return [stack for stack in self._stacks if layer < len(stack.layers)]

    def _of_nodes(self, number: int, column: Callable[[LayerPlan], Tensor]) -> Tensor:
        stacks = self._in(number)
        return torch.cat([s.each_graph(column(s.layers[number]).to(s.values)) for s in stacks])

    def by_layer(self, rows: Tensor) -> list[Tensor]:
        layers = []
        for number in range(self.depth):
            parts = []
            for stack in self._in(number):
                nodes = stack.start.node + stack.layers[number].nodes
                parts.append(stack.each_graph(rows[nodes]))
            layers.append(torch.cat(parts))
        return layers

    def weights(self, centre: Tensor, scale: Tensor, views: Views) -> list["_Weights"]:
        weights = []
        for stack in self._stacks:
            row = stack.start.row + stack.edge_row
            z = (stack.values - centre[row]) / scale[row]
            weights.append(_Weights(stack, views(z)))
        return weights

    def inward(
        self, layer: int, x: Sequence[Tensor], weights: Sequence["_Weights"], gains: Tensor
    ) -> Tensor:
        parts = []
        for own, plan in _reaching(weights, layer):
            heard = [(link.destination, own.forwards(link, x, gains)) for link in plan.inward]
            parts.append(own.stack.together(plan, heard, gains))
        return torch.cat(parts)

    def outward(
        self, layer: int, x: Sequence[Tensor], weights: Sequence["_Weights"], gains: Tensor
    ) -> Tensor:
        parts = []
        for own, plan in _reaching(weights, layer):
            heard = [(link.source, own.backwards(link, x, gains)) for link in plan.outward]
            parts.append(own.stack.together(plan, heard, gains))
        return torch.cat(parts)

    def moments(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        means, squares, places = [], [], []
        for number, nodes in enumerate(x):
            for stack in self._in(number):
                plan = stack.layers[number]
                features = stack.part(nodes, number)
                means.append(_site_means(features, plan))
                squares.append(_site_means(features.square(), plan))
                places.append(stack.site_places(plan))
        order = torch.cat(places).argsort()
        return torch.cat(means)[order], torch.cat(squares)[order]


class _Starts:
    """Where a stack begins in the tables and arrays of the batch.

    Attributes:
        node, row: its first row in the tables of nodes and of edges.
        site: the first of its sites among those of all graphs.
        layers: its first row in the array of each layer.
    """

    def __init__(
        self,
        node: int = 0,
        row: int = 0,
        site: int = 0,
        layers: Sequence[int] = (),
    ) -> None:
        self.node, self.row, self.site = node, row, site
        self.layers = list(layers)

    def after(self, stack: "_Stack") -> "_Starts":
        """Where the stack begins that follows one which begins here."""
        layers = [*self.layers, *[0] * (len(stack.layers) - len(self.layers))]
        for number, plan in enumerate(stack.layers):
            layers[number] += stack.graphs * len(plan.nodes)
        return _Starts(
            node=self.node + sum(len(plan.nodes) for plan in stack.layers),
            row=self.row + sum(block.size("kernel") for block in stack.blocks),
            site=self.site + stack.graphs * sum(len(plan.sites) for plan in stack.layers),
            layers=layers,
        )

    def of_layer(self, number: int) -> int:
        """The first row in the array of a layer."""
        return self.layers[number] if number < len(self.layers) else 0


class _Stack:
    """Graphs of one architecture: the layers of their template, and where they stand in the batch."""

    def __init__(self, stack: GraphStack, values: Tensor, start: _Starts) -> None:
        plan = layered_plan(stack.template, values.device)
        self.layers, self.edge_row = plan.layers, plan.edge_row
        self.blocks = stack.template.blocks
        self.values, self.graphs, self.start = values, len(values), start

    def each_graph(self, rows: Float[Tensor, "nodes width"]) -> Float[Tensor, "rows width"]:
        """The same for each graph, graph by graph."""
        return rows.repeat(self.graphs, 1)

    def part(
        self, x: Float[Tensor, "rows width"], layer: int
    ) -> Float[Tensor, "graphs nodes width"]:
        """What belongs to this stack of an array about a layer's nodes."""
        first = self.start.of_layer(layer)
        nodes = len(self.layers[layer].nodes)
        return x[first : first + self.graphs * nodes].view(self.graphs, nodes, x.shape[1])

    def read(self, x: Sequence[Tensor], span: Span) -> Float[Tensor, "graphs nodes features"]:
        """Features of the nodes on one side of a block."""
        nodes = self.part(x[span.layer], span.layer)[:, span.first : span.first + span.count]
        return nodes if span.index is None else nodes[:, span.index]

    def site_places(self, plan: LayerPlan) -> Int[Tensor, " sites"]:
        """For the sites of a layer, graph by graph, their places in the layout: site by site, then
        graph by graph."""
        graphs = torch.arange(self.graphs, device=plan.sites.device)
        return (self.start.site + plan.sites * self.graphs + graphs[:, None]).flatten()

    def together(
        self, plan: LayerPlan, heard: Sequence[tuple[Span, Tensor]], like: Tensor
    ) -> Float[Tensor, "rows width"]:
        """Sums of messages ``(graphs, nodes of the span, width)``, for all nodes of a layer."""
        width = like.shape[1]
        if not plan.counts:
            return like.new_zeros(0, width)
        sums: list[Tensor | None] = [None] * len(plan.counts)
        for span, message in heard:
            if span.index is not None:
                silent = message.new_zeros(self.graphs, span.count, width)
                message = silent.index_add(1, span.index, message)
            before = sums[span.site]
            sums[span.site] = message if before is None else before + message
        parts = [
            like.new_zeros(self.graphs, count, width) if total is None else total
            for total, count in zip(sums, plan.counts, strict=True)
        ]
        return torch.cat(parts, 1).flatten(0, 1)


class _Weights:
    """Views of all values of a stack, block by block in the order in which products need them.

    Args:
        stack: of graphs.
        views: ``(graphs, edges, views)``.
    """

    def __init__(self, stack: _Stack, views: Float[Tensor, "graphs edges views"]) -> None:
        self.stack, self._views = stack, views
        self._cells: dict[int, Tensor] = {}
        self._inward: dict[int, Tensor] = {}
        self._outward: dict[int, Tensor] = {}

    def cells(self, link: Link) -> Float[Tensor, "graphs group destination source kernel views"]:
        """The views of one block."""
        if link.block not in self._cells:
            self._cells[link.block] = self.stack.blocks[link.block].dense(self._views)
        return self._cells[link.block]

    def forwards(
        self, link: Link, x: Sequence[Tensor], gains: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "graphs nodes width"]:
        """What reaches the destinations of a block."""
        # (.., destination, kernel, source, views): a view where there is one group, one kernel
        # position and the tensor's own order
        order = (0, 1, 2, 4, 3, 5)
        return self._heard(link, link.source, order, link.fan_in, self._inward, x, gains)

    def backwards(
        self, link: Link, x: Sequence[Tensor], gains: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "graphs nodes width"]:
        """What reaches the sources of a block on the way back."""
        order = (0, 1, 3, 4, 2, 5)  # (.., source, kernel, destination, views)
        return self._heard(link, link.destination, order, link.fan_out, self._outward, x, gains)

    def _heard(
        self,
        link: Link,
        side: Span,
        order: tuple[int, ...],
        fan: int,
        matrices: dict[int, Tensor],
        x: Sequence[Tensor],
        gains: Float[Tensor, "rows width"],
    ) -> Float[Tensor, "graphs nodes width"]:
        """What the nodes on one side of a block say to the other.

        Args:
            side: who speaks.
            order: of the block's axes: who hears, then who speaks.
            fan: how many edges reach one node that hears.
            matrices: ``(graphs * group, to, kernel * from * views)`` by block, kept once made.
        """
        group, destination, source, _ = link.sizes
        gain = self._gain(link, gains)
        features = self.stack.read(x, side)
        if destination == source == 1:
            return self._pairs(link, features, gain)
        if link.block not in matrices:
            cells = self.cells(link).permute(order)
            matrices[link.block] = cells.flatten(3).flatten(0, 1)
        return self._product(matrices[link.block], features, gain, group, fan**-0.5)

    @staticmethod
    def _product(
        weights: Float[Tensor, "matrices to entries"],
        features: Float[Tensor, "graphs from features"],
        gain: Float[Tensor, "kernel width"],
        group: int,
        scale: float,
    ) -> Float[Tensor, "graphs to_all width"]:
        """Every node hears all on the other side, each by the views of the value between them.

        ::

            weights (to, kernel from views) @ features (kernel from views, width)
        """
        graphs = len(features)
        kernel, width = gain.shape
        cells = features.reshape(graphs * group, 1, -1, width)
        if kernel == 1:
            heard = torch.bmm(weights, cells[:, 0]) * (gain * scale)
        else:
            heard = torch.bmm(weights, (cells * (gain * scale)[:, None]).flatten(1, 2))
        return heard.view(graphs, -1, width)

    def _pairs(
        self,
        link: Link,
        features: Float[Tensor, "graphs nodes features"],
        gain: Float[Tensor, "kernel width"],
    ) -> Float[Tensor, "graphs nodes width"]:
        """Blocks in which every neuron meets its own partner only: depthwise kernels, residual sums.

        ::

            sum over views of  features (node, view, width) * [views of the kernel @ gain] (node, view, width)
        """
        kernel, width = gain.shape
        cells = self.cells(link)[:, :, 0, 0]  # (graphs, group, kernel, views)
        weights = cells.mT @ (gain * kernel**-0.5)
        return (features.view(*weights.shape[:2], -1, width) * weights).sum(2)

    def _gain(self, link: Link, gains: Tensor) -> Float[Tensor, "kernel width"]:
        first = self.stack.start.row + link.row
        return gains[first : first + link.sizes[3]]


def _reaching(weights: Sequence[_Weights], layer: int) -> Iterator[tuple[_Weights, LayerPlan]]:
    """The stacks that reach so deep, and their plan of this layer."""
    for own in weights:
        if layer < len(own.stack.layers):
            yield own, own.stack.layers[layer]


def _site_means(
    features: Float[Tensor, "graphs nodes width"], plan: LayerPlan
) -> Float[Tensor, "sites width"]:
    """Graph by graph, site by site."""
    graphs, _, width = features.shape
    sums = features.new_zeros(graphs, len(plan.sites), width).index_add(1, plan.site, features)
    return (sums / plan.count.to(features)[:, None]).flatten(0, 1)
