"""How the graphs of a batch lie in memory: the operations on nodes and edges that metanetworks are
written in.

A model is written once, in terms of :class:`Layout`; :class:`DenseLayout` (stacks of graphs of one
architecture each, sums and broadcasts) and :class:`~metanet.nn._sparse.SparseLayout` (any batch of
graphs, gather and scatter) give the same numbers, each in its own order of nodes and edges.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import MetanetError
from ..graph import GraphStack
from ._chunks import Matrix, cut
from ._dense_layered import DenseLayered
from ._edge_update import EdgeUpdate
from ._layered import Layered
from ._plan import TemplatePlan, plan
from ._propagate import Propagate
from ._statistics import STATISTICS, statistics_of_rows
from ._tables import TENSOR_COLUMNS, Rows, concatenate


class Layout(ABC):
    """A batch of graphs.

    Attributes:
        graphs: how many.
        values: ``(edges,)``, finite: what is not a number became 0, what is infinite became very
            large.
        nodes, edges, sites, tensors: tables of what is static. Their rows are *not* nodes and edges
            one to one: ``per_node``, ``per_edge``, ``per_site`` and ``per_tensor`` bring numbers
            computed per row to them.
        site_graph, tensor_graph: which graph every site (node range) and every tensor (block) of
            the batch belongs to.
    """

    graphs: int
    values: Float[Tensor, " edges"]
    nodes: Rows
    edges: Rows
    sites: Rows
    tensors: Rows
    site_graph: Int[Tensor, " sites"]
    tensor_graph: Int[Tensor, " tensors"]
    architecture: Float[Tensor, "graphs features"]

    @abstractmethod
    def per_node(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "nodes width"]:
        """Numbers of the rows of :attr:`nodes`, for every node."""

    @abstractmethod
    def per_edge(self, rows: Float[Tensor, " rows"]) -> Float[Tensor, " edges"]:
        """Numbers of the rows of :attr:`edges`, for every edge."""

    @abstractmethod
    def per_site(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "sites width"]:
        """Numbers of the rows of :attr:`sites`, for every site (node range) of every graph."""

    @abstractmethod
    def per_tensor(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "tensors width"]:
        """Numbers of the rows of :attr:`tensors`, for every tensor (block) of every graph."""

    @abstractmethod
    def update_edges(
        self,
        e: Float[Tensor, "edges dim"],
        w_e: Float[Tensor, "dim width"],
        source: Float[Tensor, "nodes width"],
        destination: Float[Tensor, "nodes width"],
        static: Float[Tensor, "rows width"] | None = None,
        w_o: Float[Tensor, "width dim"] | None = None,
        keep: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """``h = relu(e w_e + source + destination + static)`` and ``e + h w_o``.

        Returns:
            ``e + h w_o`` (without ``w_o``: ``h`` itself if ``keep``, else ``None``) and means of
            ``h``: over the edges that reach a node and those that leave it (means over each tensor,
                summed over tensors), ``(nodes, width)``,
            and over each tensor, ``(tensors, width)``.
        """

    @abstractmethod
    def signals(self, values: Float[Tensor, " edges"]) -> Any:
        """The matrices along which :meth:`propagate` sends signals, from one bounded value per
        edge."""

    @abstractmethod
    def propagate(self, signals: Any, x: Float[Tensor, "nodes width"]) -> tuple[Tensor, Tensor]:
        r"""Sends node features through the network's own weights, forwards and backwards.

        The first half of the features goes through ``v``, as activations do, the second through
        ``v^2``, as variances do: :math:`\sum_s v_{ds} x_s` to destinations, and with weights
        :math:`\sqrt{fan_{in} / fan_{out}}\, v_{ds}` to sources.

        Returns:
            what arrives at destinations and at sources, each ``(nodes, width)``.
        """

    @abstractmethod
    def site_mean(self, x: Float[Tensor, "nodes width"]) -> Float[Tensor, "sites width"]:
        """Mean over the nodes of every site."""

    @abstractmethod
    def site_slots(
        self, share: Float[Tensor, "rows slots"], features: Float[Tensor, "sites width"]
    ) -> Float[Tensor, "graphs slots*width"]:
        """Sums over the sites of every graph, for each slot with weights of its own: one for each
        row of the table of sites."""

    @abstractmethod
    def tensor_slots(
        self, share: Float[Tensor, "rows slots"], features: Float[Tensor, "tensors width"]
    ) -> Float[Tensor, "graphs slots*width"]:
        """Likewise over the tensors of every graph."""

    @abstractmethod
    def edge_sum(self, e: Float[Tensor, "edges width"]) -> Float[Tensor, "graphs width"]:
        """Sum over the edges of every graph."""

    @abstractmethod
    def layered(self) -> Layered:
        """The nodes layer by layer, for models that follow the data."""

    @abstractmethod
    def statistics(self) -> Float[Tensor, "tensors 7"]:
        """Mean, variance and quantiles 0, 25, 50, 75, 100 % of the values of every tensor."""

    @abstractmethod
    def flat(self) -> tuple[Float[Tensor, "graphs entries"], Int[Tensor, "tensors columns"]] | None:
        """All values of every graph, and what its tensors are; ``None`` if the graphs are of
        several architectures."""

    @abstractmethod
    def node_inputs(
        self, given: Any, width: int
    ) -> tuple[Float[Tensor, "nodes width"], Float[Tensor, "nodes 1"]] | None:
        """The inputs given for some of the nodes (zero elsewhere), and one where they were
        given."""

    def pool(
        self, tokens: Float[Tensor, "tokens width"], graph: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "graphs width"]:
        """Sum over the tokens of every graph."""
        return tokens.new_zeros(self.graphs, tokens.shape[1]).index_add_(0, graph, tokens)


def finite(values: Tensor) -> Tensor:
    """Diverged networks hold infinities and NaN; a metanetwork must still answer, and train."""
    return torch.nan_to_num(values, nan=0.0, posinf=1e30, neginf=-1e30).clamp(-1e15, 1e15)


class DenseLayout(Layout):
    """Stacks of graphs, each stack of one architecture; nodes and edges in template order, graphs
    innermost."""

    def __init__(
        self, stacks: Sequence[GraphStack], device: torch.device, dtype: torch.dtype
    ) -> None:
        if not stacks:
            raise MetanetError("a metanetwork was given no graphs: the sequence of stacks is empty")
        for number, stack in enumerate(stacks):
            shape, edges = tuple(stack.edge_attr.shape), stack.template.num_edges
            if len(shape) != 3 or shape[1:] != (edges, 1):
                raise MetanetError(
                    f"stack {number}: edge_attr is {shape}, its template says (batch, {edges}, 1)"
                )
        self._stacks = stacks
        self._raw = [finite(s.edge_attr[..., 0].to(device=device, dtype=dtype)) for s in stacks]
        self._plans = [plan(s.template, device) for s in stacks]
        self._batch = [len(s) for s in stacks]
        self.graphs = sum(self._batch)
        self._ordered = [
            v if p.order is None else v[:, p.order]
            for v, p in zip(self._raw, self._plans, strict=True)
        ]
        self.values = torch.cat([v.t().reshape(-1) for v in self._ordered])
        self.nodes = concatenate([p.nodes for p in self._plans])
        self.edges = concatenate([p.edges for p in self._plans])
        self.sites = concatenate([p.sites for p in self._plans])
        self.tensors = concatenate([p.tensors for p in self._plans])
        self.site_graph = self._graph_of([len(p.ranges) for p in self._plans], device)
        self.tensor_graph = self._graph_of([p.blocks for p in self._plans], device)
        self.architecture = torch.cat(
            [
                p.architecture.to(dtype).expand(b, -1)
                for p, b in zip(self._plans, self._batch, strict=True)
            ]
        )
        self._chunks = cut(self._plans, self._batch, dtype)

    def _graph_of(self, counts: list[int], device: torch.device) -> Tensor:
        parts, first = [], 0
        for count, batch in zip(counts, self._batch, strict=True):
            parts.append(torch.arange(first, first + batch, device=device).repeat(count))
            first += batch
        return torch.cat(parts)

    def _spread(self, rows: Tensor, size: Callable[[TemplatePlan], int]) -> Tensor:
        """The rows of every template once per graph of its stack."""
        parts = rows.split([size(p) for p in self._plans])
        wide = [
            r[:, None].expand(-1, b, *r.shape[1:]) for r, b in zip(parts, self._batch, strict=True)
        ]
        return torch.cat([w.reshape(-1, *rows.shape[1:]) for w in wide])

    def per_node(self, rows: Tensor) -> Tensor:
        """Repeats each row for the nodes that it stands for."""
        return self._spread(rows, lambda p: sum(p.ranges))

    def per_site(self, rows: Tensor) -> Tensor:
        """Repeats each row for the sites that it stands for."""
        return self._spread(rows, lambda p: len(p.ranges))

    def per_tensor(self, rows: Tensor) -> Tensor:
        """Repeats each row for the tensors that it stands for."""
        return self._spread(rows, lambda p: p.blocks)

    def per_edge(self, rows: Tensor) -> Tensor:
        """Repeats each row for the edges that it stands for."""
        return self._spread(self._per_template_edge(rows), lambda p: p.edge_row.shape[0])

    def _per_template_edge(self, rows: Tensor) -> Tensor:
        parts = rows.split([p.edges["kind"].shape[0] for p in self._plans])
        if rows.ndim == 1:
            return torch.cat([r[p.edge_row] for r, p in zip(parts, self._plans, strict=True)])
        # embedding: its gradient is summed much faster than that of indexing
        return torch.cat(
            [F.embedding(p.edge_row, r) for r, p in zip(parts, self._plans, strict=True)]
        )

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
        """By blocks: products of arrays and sums along their axes; see :class:`Layout`."""
        if static is not None:
            static = self._per_template_edge(static)
        return EdgeUpdate.apply(e, w_e, source, destination, static, w_o, keep, self._chunks)

    def signals(self, values: Tensor) -> list[Tensor | None]:
        """For every block that carries signals ``(group, graphs, 2, destination, source)``."""
        out: list[Tensor | None] = []
        for chunk, v in zip(self._chunks.pieces, values.split(self._chunks.edges), strict=True):
            if not isinstance(chunk, Matrix) or chunk.signal == 0:
                out.append(None)
                continue
            g, k, d, s, b = chunk.shape
            v = v.view(g, k, d, s, b)
            both = torch.stack([v.sum(1), (v * v).sum(1)])  # (2, g, d, s, b)
            out.append(both.permute(1, 4, 0, 2, 3).contiguous())
        return out

    def propagate(self, signals: list[Tensor | None], x: Tensor) -> tuple[Tensor, Tensor]:
        """By blocks: products of matrices; see :class:`Layout`."""
        return Propagate.apply(x, self._chunks, *signals)

    def site_mean(self, x: Tensor) -> Tensor:
        """Mean over the nodes of every site."""
        width = x.shape[-1]
        parts = zip(x.split(self._chunks.nodes), self._chunks.node_graphs, strict=True)
        return torch.cat([part.view(-1, b, width).mean(0) for part, b in parts])

    def site_slots(self, share: Tensor, features: Tensor) -> Tensor:
        return self._slots(share, features, [len(p.ranges) for p in self._plans])

    def tensor_slots(self, share: Tensor, features: Tensor) -> Tensor:
        return self._slots(share, features, [p.blocks for p in self._plans])

    def _slots(self, share: Tensor, features: Tensor, counts: list[int]) -> Tensor:
        """One product per stack, ``(slots, tokens) @ (tokens, graphs width)``."""
        slots, width = share.shape[1], features.shape[1]
        sizes = [count * graphs for count, graphs in zip(counts, self._batch, strict=True)]
        parts = []
        for own, tokens, graphs in zip(
            share.split(counts), features.split(sizes), self._batch, strict=True
        ):
            sums = own.t() @ tokens.reshape(len(own), graphs * width)
            parts.append(sums.view(slots, graphs, width).transpose(0, 1).flatten(1))
        return torch.cat(parts)

    def edge_sum(self, e: Tensor) -> Tensor:
        """Sum over the edges of every graph."""
        parts = zip(e.split([n * b for n, b in self._chunks.stacks]), self._batch, strict=True)
        return torch.cat([part.view(-1, b, e.shape[1]).sum(0) for part, b in parts])

    def layered(self) -> Layered:
        return DenseLayered(self._stacks, self._raw)

    def statistics(self) -> Tensor:
        """Mean, variance and quantiles of every tensor."""
        out = []
        for values, p, batch in zip(self._ordered, self._plans, self._batch, strict=True):
            parts = values.split([blocks * count for blocks, count in p.runs], 1)
            rows = [part.reshape(-1, count) for part, (_, count) in zip(parts, p.runs, strict=True)]
            by_stack = torch.cat(
                [statistics_of_rows(r).view(batch, -1, len(STATISTICS)) for r in rows], 1
            )
            by_stack = by_stack if p.place is None else by_stack[:, p.place]
            out.append(by_stack.transpose(0, 1).flatten(0, 1))
        return torch.cat(out)

    def flat(self) -> tuple[Tensor, Tensor] | None:
        """All values of every graph: those of the stack, as they lie."""
        tables = [torch.stack([p.tensors[k] for k in TENSOR_COLUMNS], 1) for p in self._plans]
        if not all(torch.equal(t, tables[0]) for t in tables):
            return None
        return torch.cat(self._raw), tables[0]

    def node_inputs(self, given: Any, width: int) -> tuple[Tensor, Tensor] | None:
        """For each stack ``{number of the node range: (graphs, nodes, width)}``, laid out."""
        if given is None:
            return None
        if len(given) != len(self._plans):
            raise MetanetError(
                f"node_inputs has {len(given)} entries for {len(self._plans)} stacks: give one dict each"
            )
        parts, masks = [], []
        like = self.values
        for number, (inputs, p, batch) in enumerate(
            zip(given, self._plans, self._batch, strict=True)
        ):
            _check_ranges(number, inputs, p, batch, width)
            for r, count in enumerate(p.ranges):
                part = inputs.get(r)
                masks.append(like.new_full((count * batch, 1), float(part is not None)))
                if part is None:
                    parts.append(like.new_zeros(count * batch, width))
                else:
                    parts.append(part.to(like).transpose(0, 1).reshape(count * batch, width))
        return torch.cat(parts), torch.cat(masks)


def _check_ranges(number: int, inputs: Any, p: TemplatePlan, batch: int, width: int) -> None:
    for r, x in inputs.items():
        if not 0 <= r < len(p.ranges):
            raise MetanetError(
                f"node_inputs[{number}]: there is no node range {r}, the template has {len(p.ranges)}"
            )
        if tuple(x.shape) != (batch, p.ranges[r], width):
            raise MetanetError(
                f"node_inputs[{number}][{r}] is {tuple(x.shape)}, expected (graphs, nodes, probes) = "
                f"{(batch, p.ranges[r], width)}"
            )
