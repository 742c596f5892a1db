"""The general form of a layered batch: any batch of parameter graphs, by gather and scatter."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._layered import Layered, Views


class SparseLayered(Layered):
    """The nodes of a layer in the order of the batch.

    Args:
        values: of all edges, finite.
        ends: node numbers of every edge's source and destination.
        layer: of every node, as the schema counts it.
        site: of every node; sites are counted through the batch.
        site_graph: graph of every site.
        fan_in, fan_out: of every edge.
    """

    def __init__(
        self,
        values: Float[Tensor, " edges"],
        ends: tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]],
        layer: Int[Tensor, " nodes"],
        site: Int[Tensor, " nodes"],
        site_graph: Int[Tensor, " sites"],
        fan_in: Int[Tensor, " edges"],
        fan_out: Int[Tensor, " edges"],
    ) -> None:
        source, destination = ends
        is_reached = torch.zeros_like(site_graph, dtype=torch.bool)
        is_reached[site[destination]] = True
        layer = (1 + layer) * is_reached[site]
        self._values = values
        self._unit_in, self._unit_out = fan_in.to(values).rsqrt(), fan_out.to(values).rsqrt()
        self._order = layer.argsort(stable=True)
        counts = torch.bincount(layer)
        self._counts: list[int] = counts.tolist()
        self.depth = len(self._counts)
        # The place of a node: its row where all layers stand one behind the other.
        place = torch.empty_like(self._order)
        place[self._order] = torch.arange(len(layer), device=layer.device)
        self._source, self._destination = place[source], place[destination]
        self._first: list[int] = (counts.cumsum(0) - counts).tolist()
        from_layer, to_layer = layer[source], layer[destination]
        numbers = range(self.depth)
        is_onward = from_layer < to_layer
        self._inward = [(to_layer == n).nonzero()[:, 0] for n in numbers]
        self._outward = [(is_onward & (from_layer == n)).nonzero()[:, 0] for n in numbers]

        loops = values.new_zeros(len(layer), 1)
        loops[destination[~is_onward]] = 1
        sends = values.new_zeros(len(layer), 1)
        sends[source[is_onward]] = 1
        self.loops, self.sends = self.by_layer(loops), self.by_layer(sends)
        self._site = site[self._order]
        counts = torch.bincount(site, minlength=len(site_graph))
        self._nodes_of_site = counts.to(values)[:, None]

    def by_layer(self, rows: Tensor) -> list[Tensor]:
        return list(rows[self._order].split(self._counts))

    def weights(self, centre: Tensor, scale: Tensor, views: Views) -> Tensor:
        return views((self._values - centre) / scale)

    def inward(self, layer: int, x: Sequence[Tensor], weights: Tensor, gains: Tensor) -> Tensor:
        edges = self._inward[layer]
        gains = gains[edges] * self._unit_in[edges][:, None]
        return self._hear(
            layer, x, weights[edges], gains, self._source[edges], self._destination[edges]
        )

    def outward(self, layer: int, x: Sequence[Tensor], weights: Tensor, gains: Tensor) -> Tensor:
        edges = self._outward[layer]
        gains = gains[edges] * self._unit_out[edges][:, None]
        return self._hear(
            layer, x, weights[edges], gains, self._destination[edges], self._source[edges]
        )

    def _hear(
        self,
        layer: int,
        x: Sequence[Tensor],
        weights: Float[Tensor, "edges views"],
        gains: Float[Tensor, "edges width"],
        from_: Int[Tensor, " edges"],
        to: Int[Tensor, " edges"],
    ) -> Tensor:
        width = gains.shape[1]
        features = torch.cat(list(x))[from_].view(len(from_), -1, width)
        messages = (features * weights[..., None]).sum(1) * gains
        heard = gains.new_zeros(self._counts[layer], width)
        return heard.index_add(0, to - self._first[layer], messages)

    def moments(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        features = torch.cat(list(x))
        empty = features.new_zeros(len(self._nodes_of_site), features.shape[1])
        mean = empty.index_add(0, self._site, features) / self._nodes_of_site
        square = empty.index_add(0, self._site, features.square()) / self._nodes_of_site
        return mean, square
