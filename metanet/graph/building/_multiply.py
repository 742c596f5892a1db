"""Matrix products: the neurons that a weight makes of those that it reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...symmetry import Contraction
from ..template._schema import EdgeType, NodeType
from ._contents import Entries, HiddenAxes, Neurons
from ._edges import add_edges, chosen_axes, new_neurons
from ._ids import NONE, lay, place, varies
from ._rows import Rows, copied, copies_of, rows_of, tell_apart, with_origins
from ._state import State


@dataclass(frozen=True)
class _Axes:
    """The axes of a product.

    Attributes:
        own: batch axes along which the weight differs (heads with weights of their own).
        others: the data's other axes, all but the one that is summed over.
        back: for every axis of the data its axis in the product.
    """

    own: list[int]
    others: list[int]
    back: list[int | None]

    @classmethod
    def of(cls, flow: Contraction, weights: Sequence[Entries]) -> "_Axes":
        summed = (flow.weight_in, flow.weight_out)
        batch = [a for a in range(len(flow.weight)) if a not in summed]
        own = [a for a in batch if any(varies(w.ids, a) for w in weights)]
        others = [a for a in range(len(flow.data)) if a != flow.data_axis and a not in own]
        return cls(own, others, axes_in_product(flow))


def axes_in_product(flow: Contraction) -> list[int | None]:
    """For every axis of the data its axis in the product; ``None`` for the one that is summed over,
    and for positions of a convolution.

    ``x (batch, places, in) @ w (in, out)`` is ``(batch, places, out)``: ``[0, 1, None]``.
    """
    rank = len(flow.data)
    if flow.convolution:
        return [a if a < flow.data_axis else None for a in range(rank)]
    back: list[int | None] = [None] * rank
    mine = [a for a in range(rank) if a != flow.data_axis]
    theirs = [a for a in range(rank) if a != flow.out_axis]
    for a, b in zip(mine, theirs, strict=True):
        back[a] = b
    return back


def multiply(
    state: State, out: int, flow: Contraction, data: Neurons, weights: Sequence[Entries]
) -> Neurons:
    """A weight reads rows of neurons and makes a new one for each of its columns.

    ::

        data   (batch, K)             rows (u, *own, K): u different ones, mostly one
        weight (*own, K, N)           new neurons (u, *own, N)
        edges  (u, *own, K, N)        from rows (u, *own, K, 1) to neurons (u, *own, 1, N)
    """
    axes = _Axes.of(flow, weights)
    x = state.pool.find(data.ids.permute(*axes.own, *axes.others, flow.data_axis))
    sizes = x.shape[: len(axes.own)]
    rows = rows_of(state, x, len(axes.own))
    is_wide = any(varies(w.ids, flow.weight_out) for w in weights)
    width = flow.weight.shape[flow.weight_out] if is_wide else 1
    read = _read(state, rows.nodes, flow, weights, has_own=bool(axes.own))
    ids, hidden = new_neurons(
        state,
        out,
        flow,
        (len(read.nodes), *sizes, width),
        read.nodes,
        weights,
        chosen_axes(weights, data),
    )
    if read.gaps is not None:
        weights = [
            part for w in weights for part in _without(state, w, read.gaps, flow, ids.reshape(-1))
        ]
    source = read.nodes.unsqueeze(-1).expand(*read.nodes.shape, width)
    if read.is_each_alone:
        source = copied(state, source.reshape(-1)).view(source.shape)
    _add_edges(state, flow, weights, axes.own, source, data, ids, hidden)
    if len(read.nodes) > 1:
        tell_apart(state, read.nodes, ids)
    if not is_wide:
        ids = ids.expand(*ids.shape[:-1], flow.weight.shape[flow.weight_out])
    return Neurons(_laid_out(state, out, flow, axes, Rows(ids, rows.number)), hidden)


@dataclass(frozen=True)
class _Read:
    """What a weight reads.

    Attributes:
        nodes: ``(u, *own, K)``.
        gaps: ``(K,)``, where it reads nothing and its columns have source nodes of their own.
        is_each_alone: every entry reads a copy of its own.
    """

    nodes: Tensor
    gaps: Tensor | None
    is_each_alone: bool


def _read(
    state: State, rows: Tensor, flow: Contraction, weights: Sequence[Entries], has_own: bool
) -> _Read:
    """The nodes that a weight reads: origins where there is none, copies where one is read several
    times.

    Where inputs of the weight move by what its outputs say (each channel has states of its own), an
    input that is read twice is a copy for each output.
    """
    gaps = rows.reshape(-1) < 0
    is_keyed = len(gaps) == rows.shape[-1] and any(
        state.uses.key_axes(w, [flow.weight_in]) for w in weights
    )
    rows = torch.where(rows < 0, rows.max(), rows) if is_keyed else with_origins(state, rows)
    has_gaps = is_keyed and bool(gaps.any())
    alone = is_keyed and not has_gaps and len(torch.unique(rows)) < len(gaps)
    if not (has_own or alone):
        rows = copies_of(state, rows, flow)
    return _Read(rows, gaps if has_gaps else None, alone)


def _without(
    state: State, w: Entries, gaps: Tensor, flow: Contraction, ids: Tensor
) -> list[Entries]:
    """A weight without the columns that nothing tells apart, which get nodes of their own; nothing
    may remain of it."""
    rank, axis = w.ids.ndim, flow.weight_in
    runs = torch.split(gaps, torch.unique_consecutive(gaps, return_counts=True)[1].tolist())
    remaining = torch.full(w.ids.shape, NONE)
    first = 0
    for run in runs:
        part = replace(w, ids=w.ids.narrow(axis, first, len(run)))
        if run[0]:
            neurons = lay(ids, flow.weight_out, rank).expand(part.ids.shape)
            state.uses.attach(part, neurons, NodeType.ORIGIN, EdgeType.LINEAR)
        else:
            remaining.narrow(axis, first, len(run)).copy_(part.real().ids)
        first += len(run)
    return [] if gaps.all() else [replace(w, ids=remaining)]


def _add_edges(
    state: State,
    flow: Contraction,
    weights: Sequence[Entries],
    own: list[int],
    source: Tensor,
    data: Neurons,
    ids: Tensor,
    hidden: HiddenAxes,
) -> None:
    """The edges of all tensors that the weight is made of, over the axes ``(u, *own, K, N)``."""
    shape = source.shape
    destination = ids.unsqueeze(-2).expand(shape)
    order = [*own, flow.weight_in, flow.weight_out]
    for w in weights:
        x = w.ids
        for axis in sorted(set(range(x.ndim)).difference(order), reverse=True):
            x = x.select(axis, 0)
        ranks = sorted(order)
        x = x.permute([ranks.index(axis) for axis in order])
        if shape[-1] == 1:
            x = x.narrow(-1, 0, 1)
        entries = replace(w, ids=x.unsqueeze(0).expand(shape))
        along = (len(shape) - 2, len(shape) - 1)
        add_edges(state, entries, source, destination, data.hidden, hidden, EdgeType.LINEAR, along)


def _laid_out(state: State, out: int, flow: Contraction, axes: _Axes, made: Rows) -> Tensor:
    """The new neurons over the product's axes."""
    own = [axes.back[a] for a in axes.own]
    others = [axes.back[a] for a in axes.others]
    sizes = [flow.data.shape[a] for a in axes.others]
    if len(made.nodes) == 1:  # (*own, N): the same at every place
        ids = made.nodes[0]
        lead = ids.shape[:-1]
        ids = ids.view(*lead, *(1,) * len(sizes), ids.shape[-1])
        ids = ids.expand(*lead, *sizes, ids.shape[-1])
        return place(ids, [*own, *others, flow.out_axis], state.shape(out))
    ids = made.nodes[made.number.reshape(-1)].view(*sizes, *made.nodes.shape[1:])
    return place(ids, [*others, *own, flow.out_axis], state.shape(out))
