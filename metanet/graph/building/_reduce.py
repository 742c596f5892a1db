"""Sums, means and largest ones over neurons: neurons themselves, unless they only normalise what
they sum up."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...symmetry import Total
from ..template._schema import EdgeType, NodeType
from ._contents import Neurons
from ._ids import distinct, only_varying, place, unique_rows, varies
from ._made import Making, Reduction
from ._state import Operation, State


def reduce(
    state: State,
    operation: Operation,
    part: Neurons,
    back: Sequence[int | None],
    shape: Sequence[int],
) -> Neurons | None:
    """Neurons over the axes that remain; ``None`` if none of these tells any apart.

    ``sum`` over axis 1 of the neurons ``[[1, 2], [3, 4]]`` makes two, of ``1 2`` and of ``3 4``.
    Their edges wait, as a sum that a norm divides by is no neuron.

    Args:
        back: for each axis where it goes.
        shape: of the result.
    """
    ids = state.pool.find(part.ids)
    gone = [axis for axis, target in enumerate(back) if target is None]
    stay = [axis for axis, target in enumerate(back) if target is not None]
    if part.hidden or not any(varies(ids, axis) for axis in stay):
        return None
    table = only_varying(ids).permute(*stay, *gone)
    sizes = table.shape[: len(stay)]
    rows, inverse = unique_rows(table.reshape(sizes.numel(), -1))
    if len(rows) == 1:
        return None
    nodes = state.made.known(operation.op.name, (rows.reshape(-1),))
    if nodes is None:
        nodes = _make(state, operation, rows)
    laid_out = nodes[inverse].view(*sizes, *(1 for _ in gone))
    order = torch.tensor([*stay, *gone]).argsort().tolist()
    return Neurons(place(laid_out.permute(*order).expand(ids.shape), back, shape))


def _make(state: State, operation: Operation, rows: Tensor) -> Tensor:
    """New neurons, one for each row of others."""
    sums = operation.word(Total) is not None
    pool, op = state.pool, operation.op
    type, edge = (NodeType.SUM, EdgeType.RESIDUAL) if sums else (NodeType.PRODUCT, EdgeType.JOINT)
    name, groups = f"{op.short_name} {len(pool.sites)}", pool.groups_of(rows.amax(1))
    nodes = pool.new(name, len(rows), type, pool.layer(rows) + 1, groups).ids
    state.made.add(Making(op.name, (rows.reshape(-1),), nodes, state.uses.module))
    state.reductions.append(Reduction(rows, nodes, edge))
    return nodes


def normalises(state: State, statistic: Tensor, neurons: Tensor) -> bool:
    """Whether the first are sums over the second, by which these are shifted or scaled."""
    pool = state.pool
    totals, summed = pool.find(distinct(statistic)), pool.find(distinct(neurons))
    for reduction in state.reductions:
        nodes = pool.find(reduction.ids)
        if torch.isin(totals, nodes).all():
            rows = reduction.rows[torch.isin(nodes, totals)]
            return bool(torch.isin(pool.find(distinct(rows)), summed).all())
    return False


def connect_reductions(state: State) -> None:
    """Edges to those that something reads, the last first."""
    pool, uses = state.pool, state.uses
    is_read = torch.zeros(len(pool), dtype=torch.bool)
    for use in uses.of_parameters:
        for side in (use.source, use.destination):
            is_read[pool.find(distinct(side))] = True
    for edges in uses.constant:
        is_read[pool.find(edges.source)] = True
        is_read[pool.find(edges.destination)] = True
    for reduction in reversed(state.reductions):
        ids, rows = pool.find(reduction.ids), reduction.rows
        if is_read[ids].any():
            uses.connect(reduction.type, rows, ids.unsqueeze(-1).expand(rows.shape))
            is_read[pool.find(distinct(rows))] = True
