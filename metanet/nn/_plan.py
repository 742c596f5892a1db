"""What the dense path needs to know of a template, worked out once per template and device."""

from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..graph import Block, GraphTemplate
from ._architecture import architecture_of
from ._pick import Pick, pick
from ._tables import SIGNAL_TYPES, Rows, site_rows, tensor_rows

_TOGETHER = (
    1024  # blocks of up to so many edges are worked on together with all others of their sizes
)


class MatrixPlan(NamedTuple):
    """Blocks that are worked on as one array ``(blocks, group, kernel, destination, source)``.

    Edges are kept in this order with the graphs of a stack innermost: then every broadcast and
    every sum of the message passing runs over contiguous rows of ``graphs * width`` numbers.

    Attributes:
        blocks: how many.
        sizes: of each: group, kernel, destination, source.
        source, destination: the nodes that they join, ``(blocks, group, source)`` and ``(blocks,
            group, destination)``.
        number: the blocks.
        signal: whether signals travel through them.
    """

    blocks: int
    sizes: tuple[int, int, int, int]
    source: Pick
    destination: Pick
    number: Pick
    signal: bool

    @property
    def edges(self) -> int:
        """Edges of one block."""
        return prod(self.sizes)


class VectorPlan(NamedTuple):
    """The edges of all blocks that are vectors: their nodes, their blocks, and their weights in
    means."""

    source: Pick
    destination: Pick
    number: Pick
    outward: Float[Tensor, "edges 1"]
    mean: Float[Tensor, "edges 1"]


@dataclass(frozen=True)
class TemplatePlan:
    """Index arrays and tables of one template.

    Attributes:
        order: for each edge in the order of work (matrices, then vectors) its number in the
            template; ``None`` if that is the same.
        matrices: the blocks that are worked on as arrays.
        vectors: the others, together; ``None`` if there are none.
        runs: how many blocks of how many edges each follow each other in the order of work.
        place: for each block its place in the order of work; ``None`` if that is the same.
        ranges: how many nodes every range has.
        edge_row: for each edge in the order of work, its row in ``edges``.
        nodes, edges: tables of everything static about nodes, and about edges (a row per block and
            kernel position).
        sites, tensors: tables of node ranges and of blocks.
        architecture: ``(features,)``
    """

    order: Int[Tensor, " edges"] | None
    matrices: tuple[MatrixPlan, ...]
    vectors: VectorPlan | None
    runs: tuple[tuple[int, int], ...]
    place: Int[Tensor, " blocks"] | None
    ranges: tuple[int, ...]
    edge_row: Int[Tensor, " edges"]
    nodes: Rows
    edges: Rows
    sites: Rows
    tensors: Rows
    architecture: Float[Tensor, " features"]

    @property
    def blocks(self) -> int:
        """How many in all."""
        return self.tensors["kind"].shape[0]


_PLANS: WeakKeyDictionary[GraphTemplate, dict[torch.device, TemplatePlan]] = WeakKeyDictionary()


def plan(template: GraphTemplate, device: torch.device) -> TemplatePlan:
    """The plan of a template, from the cache if it was asked for before."""
    plans = _PLANS.setdefault(template, {})
    if device not in plans:
        plans[device] = _make(template, device)
    return plans[device]


def _make(template: GraphTemplate, device: torch.device) -> TemplatePlan:
    matrices, vectors = _pieces(template)
    work = [number for piece in (*matrices, vectors) for number in piece]
    order, edge_row = _order(template, work)
    place = torch.tensor(work, dtype=torch.long).argsort()
    counts = [(len(piece), template.blocks[piece[0]].count) for piece in matrices]
    for count, same in groupby(template.blocks[n].count for n in vectors):
        counts.append((len(list(same)), count))
    sites, tensors = site_rows(template), tensor_rows(template)
    nodes = {k: v.repeat_interleave(sites["width"]) for k, v in sites.items()}
    nodes["io_position"] = template.io_position
    edges = {k: v.repeat_interleave(_taps(template)) for k, v in tensors.items()}
    kernels = [template.kernel_positions(b) for b in template.blocks]
    edges["kernel_pos"] = torch.cat(kernels) if kernels else torch.empty(0, 3, dtype=torch.long)

    def move(table: Rows) -> Rows:
        return {k: v.to(device) for k, v in table.items()}

    def unless_same(numbers: Tensor) -> Tensor | None:
        return None if torch.equal(numbers, torch.arange(len(numbers))) else numbers.to(device)

    return TemplatePlan(
        order=unless_same(order),
        matrices=tuple(_matrix(template, piece, device) for piece in matrices),
        vectors=_vectors(template, vectors, device) if vectors else None,
        runs=tuple(counts),
        place=unless_same(place),
        ranges=tuple(r.count for r in template.nodes),
        edge_row=edge_row.to(device),
        nodes=move(nodes),
        edges=move(edges),
        sites=move(sites),
        tensors=move(tensors),
        architecture=architecture_of(template, sites, tensors).to(device),
    )


def _pieces(template: GraphTemplate) -> tuple[list[list[int]], list[int]]:
    """Numbers of the blocks that are worked on together as an array, and of those that are vectors.

    A vector is a block of which one edge reaches every destination, unless it carries signals.
    """
    together: dict[tuple[int, ...], list[int]] = {}
    vectors = []
    for number, b in enumerate(template.blocks):
        if template.fan_in[number] == 1 and not _signal(b):
            vectors.append(number)
        else:
            same = (*b.dense_shape, _signal(b)) if b.count <= _TOGETHER else (number,)
            together.setdefault(same, []).append(number)
    return list(together.values()), sorted(vectors, key=lambda n: template.blocks[n].count)


def _signal(block: Block) -> bool:
    return int(block.type) in SIGNAL_TYPES


def _taps(template: GraphTemplate) -> Int[Tensor, " blocks"]:
    return torch.tensor([b.size("kernel") for b in template.blocks], dtype=torch.long)


def _order(
    template: GraphTemplate, work: list[int]
) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]]:
    """For each edge in the order of work its number, and its row in the table of edges."""
    taps = _taps(template)
    first_row = (taps.cumsum(0) - taps).tolist()
    numbers = torch.arange(template.num_edges)
    orders, edge_rows = [numbers[:0]], [numbers[:0]]
    for n in work:
        b = template.blocks[n]
        group, destination, source, kernel = b.dense_shape
        in_block = b.dense(numbers.view(1, -1, 1)).view(group, destination, source, kernel)
        orders.append(in_block.permute(0, 3, 1, 2).reshape(-1))
        row = torch.arange(first_row[n], first_row[n] + kernel).view(1, kernel, 1)
        edge_rows.append(row.expand(group, kernel, destination * source).reshape(-1))
    return torch.cat(orders), torch.cat(edge_rows)


def _nodes(template: GraphTemplate, number: int, side: str) -> Int[Tensor, " nodes"]:
    """Numbers of the nodes on one side of a block, by group, then by side."""
    b = template.blocks[number]
    return template.nodes[b.source if side == "source" else b.destination].start + b.nodes(side)


def _matrix(template: GraphTemplate, piece: list[int], device: torch.device) -> MatrixPlan:
    block = template.blocks[piece[0]]
    group, destination, source, kernel = block.dense_shape

    def ends(side: str) -> Pick:
        index = torch.cat([_nodes(template, n, side) for n in piece])
        if len(piece) > 1:
            return pick(0, template.num_nodes, index, device)
        nodes = template.nodes[block.source if side == "source" else block.destination]
        return pick(nodes.start, nodes.stop, index - nodes.start, device)

    return MatrixPlan(
        blocks=len(piece),
        sizes=(group, kernel, destination, source),
        source=ends("source"),
        destination=ends("destination"),
        number=_blocks(template, torch.tensor(piece), device),
        signal=_signal(block),
    )


def _blocks(template: GraphTemplate, numbers: Int[Tensor, " rows"], device: torch.device) -> Pick:
    if len(numbers) == 1:
        return Pick(int(numbers), int(numbers) + 1)
    return pick(0, len(template.blocks), numbers, device)


def _vectors(template: GraphTemplate, vectors: list[int], device: torch.device) -> VectorPlan:
    blocks = [template.blocks[n] for n in vectors]
    counts = torch.tensor([b.count for b in blocks])
    sources = [
        _nodes(template, n, "source").repeat_interleave(b.size("destination"))
        for n, b in zip(vectors, blocks, strict=True)
    ]
    destinations = [_nodes(template, n, "destination") for n in vectors]

    def per_edge(values: list[float]) -> Float[Tensor, "edges 1"]:
        return (
            torch.tensor(values, dtype=torch.float64).repeat_interleave(counts)[:, None].to(device)
        )

    return VectorPlan(
        source=pick(0, template.num_nodes, torch.cat(sources), device),
        destination=pick(0, template.num_nodes, torch.cat(destinations), device),
        number=_blocks(template, torch.tensor(vectors).repeat_interleave(counts), device),
        outward=per_edge([1 / template.fan_out[n] for n in vectors]),
        mean=per_edge([1 / b.count for b in blocks]),
    )
