"""What the dense path needs to know of a template, worked out once per template and device."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..graph import GraphTemplate
from ._architecture import architecture_of
from ._tables import SIGNAL_TYPES, Rows, site_rows, tensor_rows


@dataclass(frozen=True)
class BlockPlan:
    """Where a block's edges and nodes stand, as array sizes ``(group, kernel, destination, source)``.

    Edges are kept in this order with the graphs of a stack innermost: then every broadcast and every sum of the
    message passing runs over contiguous rows of ``graphs * width`` numbers.
    """

    number: int
    sizes: tuple[int, int, int, int]
    source: int
    destination: int
    fan_in: int
    fan_out: int
    signal: bool

    @property
    def count(self) -> int:
        return prod(self.sizes)

    @property
    def is_vector(self) -> bool:
        """Whether every destination has one edge, of a block that carries no signals."""
        return self.fan_in == 1 and not self.signal


class VectorPlan(NamedTuple):
    """The edges of all blocks that are vectors: their nodes, their blocks, and their weights in means."""

    source: Int[Tensor, " edges"]
    destination: Int[Tensor, " edges"]
    number: Int[Tensor, " edges"]
    outward: Float[Tensor, "edges 1"]
    mean: Float[Tensor, "edges 1"]


@dataclass(frozen=True)
class TemplatePlan:
    """Index arrays and tables of one template.

    Attributes:
        order: for each edge in the order of work (matrices, then vectors; each as :class:`BlockPlan` says) its number
            in the template; ``None`` if that is the same.
        matrices: the blocks that are worked on one by one.
        vectors: the others, together; ``None`` if there are none.
        blocks: how many in all.
        ranges: how many nodes every range has.
        edge_row: for each edge in the order of work, its row in ``edges``.
        nodes, edges: tables of everything static about nodes, and about edges (a row per block and kernel position).
        sites, tensors: tables of node ranges and of blocks.
        architecture: ``(features,)``
    """

    order: Int[Tensor, " edges"] | None
    matrices: tuple[BlockPlan, ...]
    vectors: VectorPlan | None
    blocks: int
    ranges: tuple[int, ...]
    edge_row: Int[Tensor, " edges"]
    nodes: Rows
    edges: Rows
    sites: Rows
    tensors: Rows
    architecture: Float[Tensor, " features"]


_PLANS: WeakKeyDictionary[GraphTemplate, dict[torch.device, TemplatePlan]] = WeakKeyDictionary()


def plan(template: GraphTemplate, device: torch.device) -> TemplatePlan:
    """The plan of a template, from the cache if it was asked for before."""
    plans = _PLANS.setdefault(template, {})
    if device not in plans:
        plans[device] = _make(template, device)
    return plans[device]


def _make(template: GraphTemplate, device: torch.device) -> TemplatePlan:
    blocks = _blocks(template)
    vectors = [b for b in blocks if b.is_vector]
    matrices = [b for b in blocks if not b.is_vector]
    taps = torch.tensor([b.sizes[1] for b in blocks], dtype=torch.long)
    first_row = (taps.cumsum(0) - taps).tolist()
    numbers = torch.arange(template.num_edges)
    orders, edge_rows = [numbers[:0]], [numbers[:0]]
    for b in (*matrices, *vectors):
        group, kernel, destination, source = b.sizes
        own = template.blocks[b.number].dense(numbers.view(1, -1, 1)).view(group, destination, source, kernel)
        orders.append(own.permute(0, 3, 1, 2).reshape(-1))
        row = torch.arange(first_row[b.number], first_row[b.number] + kernel).view(1, kernel, 1)
        edge_rows.append(row.expand(group, kernel, destination * source).reshape(-1))
    order = torch.cat(orders)
    sites, tensors = site_rows(template), tensor_rows(template)
    nodes = {k: v.repeat_interleave(sites["width"]) for k, v in sites.items()}
    edges = {k: v.repeat_interleave(taps) for k, v in tensors.items()}
    kernels = [template.kernel_positions(b) for b in template.blocks]
    edges["kernel_pos"] = torch.cat(kernels) if kernels else torch.empty(0, 3, dtype=torch.long)

    def move(table: Rows) -> Rows:
        return {k: v.to(device) for k, v in table.items()}

    return TemplatePlan(
        order=None if torch.equal(order, numbers) else order.to(device),
        matrices=tuple(matrices),
        vectors=_vectors(template, vectors, device) if vectors else None,
        blocks=len(blocks),
        ranges=tuple(r.count for r in template.nodes),
        edge_row=torch.cat(edge_rows).to(device),
        nodes=move(nodes | {"io_position": template.static["io_position"]}),
        edges=move(edges),
        sites=move(sites),
        tensors=move(tensors),
        architecture=architecture_of(sites, tensors).to(device),
    )


def _blocks(template: GraphTemplate) -> list[BlockPlan]:
    out = []
    for number, b in enumerate(template.blocks):
        group, destination, source, kernel = b.dense_shape
        out.append(
            BlockPlan(
                number=number,
                sizes=(group, kernel, destination, source),
                source=b.source,
                destination=b.destination,
                fan_in=template.fan_in[number],
                fan_out=template.fan_out[number],
                signal=int(b.type) in SIGNAL_TYPES,
            )
        )
    return out


def _vectors(template: GraphTemplate, vectors: list[BlockPlan], device: torch.device) -> VectorPlan:
    sources, destinations = [], []
    for b in vectors:
        group, _, destination, _ = b.sizes
        cells = torch.arange(group * destination)
        sources.append(template.nodes[b.source].start + cells // destination)
        destinations.append(template.nodes[b.destination].start + cells)
    counts = torch.tensor([b.count for b in vectors])

    def per_edge(values: list[int] | list[float], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(counts)

    parts = (
        torch.cat(sources),
        torch.cat(destinations),
        per_edge([b.number for b in vectors], torch.long),
        per_edge([1 / b.fan_out for b in vectors])[:, None],
        per_edge([1 / b.count for b in vectors])[:, None],
    )
    return VectorPlan(*(p.to(device) for p in parts))
