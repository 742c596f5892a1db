"""What the dense path needs to know of a template, worked out once per template and device."""

from dataclasses import dataclass
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

    sizes: tuple[int, int, int, int]
    source: int
    destination: int
    fan_in: int
    fan_out: int
    signal: bool


@dataclass(frozen=True)
class TemplatePlan:
    """Index arrays and tables of one template.

    Attributes:
        order: for each edge in the order of :class:`BlockPlan` its number in the template; ``None`` if the same.
        blocks: sizes and ends of every block.
        ranges: how many nodes every range has.
        edge_row: for each edge, its row in ``edges``.
        nodes, edges: tables of everything static about nodes, and about edges (a row per block and kernel position).
        sites, tensors: tables of node ranges and of blocks.
        architecture: ``(features,)``
    """

    order: Int[Tensor, " edges"] | None
    blocks: tuple[BlockPlan, ...]
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
    numbers = torch.arange(template.num_edges)
    none = numbers[:0]
    orders, edge_rows, kernels, blocks, rows = [none], [none], [none.new_empty(0, 3)], [], 0
    for number, b in enumerate(template.blocks):
        group, destination, source, kernel = b.dense_shape
        inside = b.dense(numbers.view(1, -1, 1)).view(group, destination, source, kernel).permute(0, 3, 1, 2)
        orders.append(inside.reshape(-1))
        row = torch.arange(rows, rows + kernel).view(1, kernel, 1)
        edge_rows.append(row.expand(group, kernel, destination * source).reshape(-1))
        rows += kernel
        kernels.append(template.kernel_positions(b))
        blocks.append(
            BlockPlan(
                sizes=(group, kernel, destination, source),
                source=b.source,
                destination=b.destination,
                fan_in=template.fan_in[number],
                fan_out=template.fan_out[number],
                signal=int(b.type) in SIGNAL_TYPES,
            )
        )
    sites, tensors = site_rows(template), tensor_rows(template)
    taps = torch.tensor([b.sizes[1] for b in blocks], dtype=torch.long)
    order = torch.cat(orders)

    def move(table: Rows) -> Rows:
        return {k: v.to(device) for k, v in table.items()}

    return TemplatePlan(
        order=None if torch.equal(order, numbers) else order.to(device),
        blocks=tuple(blocks),
        ranges=tuple(r.count for r in template.nodes),
        edge_row=torch.cat(edge_rows).to(device),
        nodes=move({k: v.repeat_interleave(sites["width"]) for k, v in sites.items()})
        | {"io_position": template.static["io_position"].to(device)},
        edges=move({k: v.repeat_interleave(taps) for k, v in tensors.items()})
        | {"kernel_pos": torch.cat(kernels).to(device)},
        sites=move(sites),
        tensors=move(tensors),
        architecture=architecture_of(sites, tensors).to(device),
    )
