"""The general path: any torch-geometric batch of parameter graphs, by gather and scatter."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import MetanetError
from ._architecture import architecture_rows
from ._layered import Layered
from ._layout import Layout, finite
from ._sparse_layered import SparseLayered
from ._statistics import statistics_of_segments
from ._tables import SIGNAL_TYPES, TENSOR_COLUMNS

_NEEDED = (
    "edge_index", "edge_attr", "edge_type", "edge_layer", "edge_tensor", "kernel_pos", "fan_in",
    "fan_out", "node_type",
    "node_layer", "node_site", "node_width", "activation", "io_position", "depth",
)  # fmt: skip


class SparseLayout(Layout):
    """A ``Data`` or ``Batch`` with the attributes of ``metanet/graph/template/_schema.py``; architectures
    may be mixed.

    Uses nothing but these attributes, so it also serves graphs that no template made.
    """

    def __init__(self, data: Any, device: torch.device, dtype: torch.dtype) -> None:
        missing = [k for k in _NEEDED if getattr(data, k, None) is None]
        if missing:
            raise MetanetError(
                f"this is no parameter graph, it lacks {', '.join(missing)}: see metanet.graph"
            )
        at = {k: getattr(data, k).to(device) for k in _NEEDED}
        nodes = at["node_type"].shape[0]
        graph = getattr(data, "batch", None)
        graph = (
            torch.zeros(nodes, dtype=torch.long, device=device)
            if graph is None
            else graph.to(device)
        )
        self.graphs = at["depth"].shape[0]
        self.source, self.destination = at["edge_index"]
        self.values = finite(at["edge_attr"][:, 0].to(dtype))
        self.inward, self.outward = (1 / at[k].to(dtype) for k in ("fan_in", "fan_out"))

        self.site, self.site_graph, first = _groups(graph, at["node_site"])
        depth = at["depth"][graph]
        names = {
            "kind": "node_type",
            "layer": "node_layer",
            "activation": "activation",
            "width": "node_width",
        }
        self.nodes = {k: at[v] for k, v in names.items()} | {
            "depth": depth,
            "io_position": at["io_position"],
        }
        self.sites = {k: v[first] for k, v in self.nodes.items() if k != "io_position"}

        edge_graph = graph[self.source]
        self.tensor, self.tensor_graph, first = _groups(edge_graph, at["edge_tensor"])
        names = {
            "kind": "edge_type",
            "layer": "edge_layer",
            "fan_in": "fan_in",
            "fan_out": "fan_out",
        }
        self.edges = {k: at[v] for k, v in names.items()} | {"depth": depth[self.source]}
        self.tensors = {k: v[first] for k, v in self.edges.items()} | {
            "count": torch.bincount(self.tensor)
        }
        self.edges["kernel_pos"] = at["kernel_pos"]
        self.edges["count"] = self.tensors["count"][self.tensor]
        reached = self.site[self.destination[first]]
        self.architecture = architecture_rows(
            self.sites, self.site_graph, self.tensors, self.tensor_graph, reached, self.graphs
        ).to(dtype)

    def per_node(self, rows: Tensor) -> Tensor:
        """As they are: the tables have a row for every node."""
        return rows

    per_edge = per_site = per_tensor = per_node

    def update_edges(
        self,
        e: Tensor,
        w_e: Tensor,
        source: Tensor,
        destination: Tensor,
        static: Tensor | None = None,
        w_o: Tensor | None = None,
        keep: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """By gather and scatter; see :class:`Layout`."""
        h = e @ w_e + source[self.source] + destination[self.destination]
        h = (h if static is None else h + static).relu()
        inward = _sum(h * self.inward[:, None], self.destination, source.shape[0])
        outward = _sum(h * self.outward[:, None], self.source, source.shape[0])
        new: Tensor | None
        if w_o is not None:
            new = e + h @ w_o
        else:
            new = h if keep else None
        mean = _sum(h, self.tensor, self.tensor_graph.shape[0]) / self.tensors["count"][:, None]
        return new, inward, outward, mean

    def signals(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of the edges that carry signals, their values and squares, and the weights of the
        way back."""
        kind = self.edges["kind"]
        carriers = torch.stack([kind == t for t in SIGNAL_TYPES]).any(0).nonzero()[:, 0]
        v = values[carriers]
        ratio = self.outward[carriers] / self.inward[carriers]  # fan-in over fan-out
        return carriers, torch.stack([v, v * v], 1), torch.stack([ratio.sqrt(), ratio], 1)

    def propagate(self, signals: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """By gather and scatter; see :class:`Layout`."""
        carriers, v, ratio = signals
        source, destination = self.source[carriers], self.destination[carriers]
        x = x.view(x.shape[0], 2, -1)
        forwards = (v[..., None] * x[source]).flatten(1)
        backwards = ((v * ratio)[..., None] * x[destination]).flatten(1)
        return _sum(forwards, destination, x.shape[0]), _sum(backwards, source, x.shape[0])

    def site_mean(self, x: Tensor) -> Tensor:
        """Mean over the nodes of every site."""
        return _sum(x, self.site, self.site_graph.shape[0]) / self.sites["width"][:, None]

    def site_slots(self, share: Tensor, features: Tensor) -> Tensor:
        return self.pool((share[:, :, None] * features[:, None]).flatten(1), self.site_graph)

    def tensor_slots(self, share: Tensor, features: Tensor) -> Tensor:
        return self.pool((share[:, :, None] * features[:, None]).flatten(1), self.tensor_graph)

    def edge_sum(self, e: Tensor) -> Tensor:
        """Sum over the edges of every graph."""
        return _sum(e, self.tensor_graph[self.tensor], self.graphs)

    def layered(self) -> Layered:
        return SparseLayered(
            values=self.values,
            ends=(self.source, self.destination),
            layer=self.nodes["layer"],
            site=self.site,
            site_graph=self.site_graph,
            fan_in=self.edges["fan_in"],
            fan_out=self.edges["fan_out"],
        )

    def statistics(self) -> Tensor:
        """Mean, variance and quantiles of the values of every tensor."""
        return statistics_of_segments(self.values, self.tensor, self.tensor_graph.shape[0])

    def flat(self) -> tuple[Tensor, Tensor] | None:
        """All values of every graph; ``None`` if the graphs are of several architectures."""
        tables = torch.stack([self.tensors[k] for k in TENSOR_COLUMNS], 1)
        if tables.shape[0] % self.graphs or self.values.shape[0] % self.graphs:
            return None
        tables = tables.view(self.graphs, -1, len(TENSOR_COLUMNS))
        if not (tables == tables[0]).all():
            return None
        return self.values.view(self.graphs, -1), tables[0]

    def node_inputs(self, given: Any, width: int) -> tuple[Tensor, Tensor] | None:
        """Given as a pair ``(nodes, width)``, ``(nodes,)``: inputs, and a mask of the nodes."""
        if given is None:
            return None
        values, mask = given
        nodes = self.nodes["kind"].shape[0]
        if tuple(values.shape) != (nodes, width) or mask.numel() != nodes:
            raise MetanetError(
                "node_inputs of a torch-geometric batch is a pair (values, mask) of shapes "
                f"{(nodes, width)} and ({nodes},), got {tuple(values.shape)} and "
                f"{tuple(mask.shape)}"
            )
        mask = mask.to(self.values).view(-1, 1)
        return values.to(self.values) * mask, mask


def _groups(
    graph: Int[Tensor, " items"], number: Int[Tensor, " items"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers count within each graph: the group of every item, the graph of every group, an item
    of every group."""
    most = int(number.max()) + 1 if number.numel() else 1
    keys, group = torch.unique(graph * most + number, return_inverse=True)
    first = torch.empty_like(keys)
    first[group] = torch.arange(group.shape[0], device=group.device)
    return group, keys // most, first


def _sum(
    x: Float[Tensor, "items width"], index: Int[Tensor, " items"], size: int
) -> Float[Tensor, "size width"]:
    # scatter_add over an expanded index has a fast path that index_add lacks on the CPU
    return x.new_zeros(size, x.shape[1]).scatter_add_(0, index[:, None].expand_as(x), x)
