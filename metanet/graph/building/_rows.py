"""The rows of neurons that a weight reads: which ones differ, and what is read several times."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...symmetry import Contraction, Leaf, Product
from ..template._schema import EdgeType, NodeType
from ._contents import Neurons
from ._ids import only_first, unique_rows, varying
from ._made import Making
from ._merge import merge
from ._state import State


@dataclass(frozen=True)
class Rows:
    """The different rows of neurons that a weight reads.

    Attributes:
        nodes: ``(rows, *own, K)``, with the axes along which the weight differs as well.
        number: ``(places...)``: which of them every place reads.
    """

    nodes: Tensor
    number: Tensor


def rows_of(state: State, ids: Tensor, own: int) -> Rows:
    """The different rows of neurons ``(*own, places..., K)``.

    Entries of an input at different places are one neuron; neurons of different sites that take
    turns (tokens of two kinds) flow into new ones; several rows remain where heads share a weight::

        place 0   1 2 3         one row, if 1 to 6 are entries of an input
        place 1   4 5 6         one row of new neurons, if they are of two sites
                                two rows else
    """
    lead, width = ids.shape[:own], ids.shape[-1]
    repeated = {a for a in range(own, ids.ndim - 1) if ids.stride(a) == 0}
    small = only_first(ids, repeated)
    places = small.shape[own:-1]
    table = small.reshape(*lead, prod(places), width)
    table = table.movedim(-2, 0).reshape(prod(places), -1)  # (places, own * K)
    if len(table) > 1 and (table != table[:1]).any() and state.pool.is_raw(table):
        any_but_padding = table.amax(0, keepdim=True).expand_as(table)
        state.pool.unite(table, any_but_padding)
        table = state.pool.find(table)
    rows, number = unique_rows(table)
    if len(rows) > 1:
        rows, number = _without_gaps(rows, number)
    if len(rows) > 1 and _are_of_different_sites(state, rows):
        streams = [Neurons(rows[0])]
        for row in rows[1:]:
            streams = merge(state, [*streams, Neurons(row)], "other")
        if len(streams) == 1:
            rows, number = streams[0].ids[None], torch.zeros_like(number)
    nodes = rows.view(len(rows), *lead, width)
    return Rows(nodes, number.view(places).expand(ids.shape[own:-1]))


def _without_gaps(rows: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that are others with neurons missing (padding) are those: ``1 - 3`` is ``1 2 3``."""
    remaining = (rows >= 0).sum(1).argsort(descending=True, stable=True)
    full: list[int] = []
    same_as = torch.zeros(len(rows), dtype=torch.long)
    while len(remaining):  # the fullest first
        row = rows[remaining[0]]
        same = ((rows[remaining] < 0) | (rows[remaining] == row)).all(1)
        same_as[remaining[same]] = len(full)
        full.append(int(remaining[0]))
        remaining = remaining[~same]
    return rows[full], same_as[number]


def _are_of_different_sites(state: State, rows: Tensor) -> bool:
    """Whether no two rows have neurons of one site."""
    numbers = [torch.unique(state.pool.site_number(row[row >= 0])) for row in rows.unbind()]
    return len(torch.unique(torch.cat(numbers))) == sum(map(len, numbers))


# ---------------------------------------------------------------- what is read several times


def copies_of(state: State, rows: Tensor, flow: Contraction) -> Tensor:
    """Neurons that a weight reads several times, where which time is which may be exchanged: nodes
    for each time.

    Streams that start as one, or the values that a group of queries shares: a weight of ``(4 heads x
    8 dims)`` that reads 8 values four times, and whose heads may move, reads 32 copies.
    """
    axis = state.solved.axis(state.solved.axes[flow.weight.value][flow.weight_in])
    if not isinstance(axis, Product):
        return rows
    sizes = [part.size for part in axis.parts]
    table = rows.view(len(rows), *sizes)
    apart = {a - 1 for a in varying(table)}
    moving = {a for a, part in enumerate(axis.parts) if isinstance(part, Leaf) and part.size > 1}
    if moving <= apart:
        return rows
    idle = set(range(len(sizes))) - moving - apart
    read = only_first(table, {a + 1 for a in idle})
    nodes = copied(state, read.reshape(-1)).view(read.shape)
    return nodes.expand(table.shape).reshape(rows.shape)


def copied(state: State, read: Tensor) -> Tensor:
    """A node of its own for each entry of a list of nodes."""
    nodes = state.made.known("copy", (read,))
    if nodes is None:
        pool = state.pool
        groups = pool.groups_of(read)
        nodes = pool.new("copies", len(read), NodeType.SHARED, pool.layer(read), groups).ids
        state.uses.connect(EdgeType.SHARE, read, nodes)
        state.made.add(Making("copy", (read,), nodes, state.uses.module))
    return nodes


def with_origins(state: State, rows: Tensor) -> Tensor:
    """Places where a weight reads no neuron get nodes of their own."""
    gaps = rows < 0
    if not gaps.any():
        return rows
    layer = state.pool.layer(rows)
    site = state.pool.new("origin", int(gaps.sum()), NodeType.ORIGIN, layer)
    rows = rows.clone()
    rows[gaps] = site.ids
    return rows


def tell_apart(state: State, rows: Tensor, made: Tensor) -> None:
    """Heads that share a weight: one node for all neurons of a row, before and behind the
    weight."""
    pool, first = state.pool, rows[..., 0]
    groups = pool.groups_of(first)
    site = pool.new("row", first.numel(), NodeType.SHARED, pool.layer(rows), groups)
    nodes = site.ids.view(*rows.shape[:-1], 1)
    state.uses.connect(EdgeType.SHARE, rows, nodes.expand(rows.shape), 1)
    state.uses.connect(EdgeType.SHARE, nodes.expand(made.shape), made, 1)
