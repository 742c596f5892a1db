"""Sums over a shared axis: neurons through a weight become new neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...symmetry import Contraction, Leaf, Product
from ...tracing import Op
from ._beside import activate
from ._couple import couple
from ._flows import Entries, Flow, Neurons, distinct, place, unique_rows, varies
from ._join import is_raw, merge
from ._made import Making
from ..template._schema import EdgeType, NodeType
from ._uses import ROLES_OF_VECTORS, explicit

if TYPE_CHECKING:
    from ._walk import Walk


def contract(walk: Walk, op: Op, flows: Sequence[Contraction]) -> Flow:
    """The neurons of a product: of a weight with neurons, of neurons with neurons."""
    out = op.outputs[0]

    def of(operand: object) -> Flow:
        return walk.flows.get(operand.value, Flow())

    for flow in flows:
        if _is_weight(of(flow.weight)) and of(flow.data).neurons:
            return _weigh(walk, out, flow, list(of(flow.data).neurons), of(flow.weight).entries)
    for flow in flows:
        if _is_weight(of(flow.weight)):
            below = of(flow.data)
            neurons = [activate(walk, flow.data.value, flow.data_axis)] if below.entries else []
            return _weigh(walk, out, flow, neurons, of(flow.weight).entries)
    flow = flows[0]
    if of(flow.data).neurons and of(flow.weight).neurons and not flow.convolution:
        return couple(walk, out, flow, of(flow.data).neurons, of(flow.weight).neurons)
    flow = next(
        (f for f in flows if of(f.data).neurons), flow
    )  # times something not followed: it mixes what it sums
    shape = walk.trace.values[out].shape
    return Flow(tuple(_survivors(flow, of(flow.data).neurons, shape)))


def _is_weight(flow: Flow) -> bool:
    return bool(flow.entries) and not flow.neurons


def _survivors(
    flow: Contraction, neurons: Sequence[Neurons], shape: tuple[int, ...]
) -> list[Neurons]:
    """What a value shows besides the neurons that are summed over, over the axes of the product."""
    axes = _back(flow, len(shape))
    kept = []
    for n in neurons:
        if not varies(n.ids, flow.data_axis) and not any(
            a is None and varies(n.ids, i) for i, a in enumerate(axes)
        ):  # fmt: skip
            kept.append(Neurons(place(n.ids, axes, shape), n.hidden))
    return kept


def _back(flow: Contraction, rank: int) -> list[int | None]:
    """For every axis of the data its axis in the product."""
    if flow.convolution:
        return [a if a < flow.data_axis else None for a in range(len(flow.data))]
    others = [a for a in range(rank) if a != flow.out_axis]
    mine = [a for a in range(len(flow.data)) if a != flow.data_axis]
    back: list[int | None] = [None] * len(flow.data)
    for a, b in zip(mine, others, strict=True):
        back[a] = b
    return back


# ---------------------------------------------------------------- weights


def _weigh(
    walk: Walk, out: int, flow: Contraction, neurons: list[Neurons], weights: Sequence[Entries]
) -> Flow:
    shape = walk.trace.values[out].shape
    summed = [n for n in neurons if varies(n.ids, flow.data_axis)]
    rest = _survivors(flow, [n for n in neurons if n not in summed], shape)
    width = flow.data.shape[flow.data_axis]
    if len(summed) > 1:
        summed = merge(walk, summed, "multiply", flow.data.value, outer=True)
    if summed:
        data = summed[0]
    elif width == 1 and neurons:
        data, rest = neurons[0], rest[1:]
    elif not flow.convolution and any(walk.uses.key_axes(w, [flow.weight_in]) for w in weights):
        return Flow((_table(walk, out, flow, weights), *rest))
    else:
        site = walk.new_site(
            "origin", (width,), NodeType.ORIGIN, walk.pool.layer(_all(neurons)), None, []
        )
        ids = site.ids.view(*(-1 if a == flow.data_axis else 1 for a in range(len(flow.data))))
        data = Neurons(ids.expand(flow.data.shape))
    made = (_convolve if flow.convolution else _multiply)(walk, out, flow, data, weights)
    return Flow((made, *rest))


def _table(walk: Walk, out: int, flow: Contraction, weights: Sequence[Entries]) -> Neurons:
    """Where nothing tells the columns of a weight apart, every one of its entries comes from a node
    of its own."""
    n, rank = flow.weight.shape[flow.weight_out], len(flow.weight)
    site = walk.new_site(
        walk.uses.names[weights[0].parameter], (n,), NodeType.HIDDEN, 1, out, [flow.out_axis]
    )
    for w in weights:
        ids = site.ids.view(*(-1 if a == flow.weight_out else 1 for a in range(rank))).expand(
            w.ids.shape
        )
        walk.uses.attach(w, ids, NodeType.ORIGIN, EdgeType.LINEAR)
    return Neurons(place(site.ids, [flow.out_axis], walk.trace.values[out].shape))


def _without(walk: Walk, w: Entries, gaps: Tensor, flow: Contraction, ids: Tensor) -> list[Entries]:
    """A weight without the columns that nothing tells apart, which get nodes as in :func:`_table`;
    it may be none."""
    along = [-1 if a == flow.weight_out else 1 for a in range(w.ids.ndim)]
    kept, first = [], 0
    for same in torch.split(gaps, torch.unique_consecutive(gaps, return_counts=True)[1].tolist()):
        part = replace(w, ids=w.ids.narrow(flow.weight_in, first, len(same)))
        if same[0]:
            walk.uses.attach(
                part, ids.view(along).expand(part.ids.shape), NodeType.ORIGIN, EdgeType.LINEAR
            )
        else:
            kept.append((first, part.real().ids))
        first += len(same)
    if not kept:
        return []
    x = torch.full(w.ids.shape, -1)
    for first, part_ids in kept:
        x.narrow(flow.weight_in, first, part_ids.shape[flow.weight_in]).copy_(part_ids)
    return [replace(w, ids=x)]


def _all(neurons: Sequence[Neurons]) -> Tensor:
    return (
        torch.cat([distinct(n.ids) for n in neurons])
        if neurons
        else torch.empty(0, dtype=torch.long)
    )


def _multiply(
    walk: Walk, out: int, flow: Contraction, data: Neurons, weights: Sequence[Entries]
) -> Neurons:
    """Matrix products. Batch axes along which the weight differs (heads with weights of their own)
    keep their place."""
    shape, rank = walk.trace.values[out].shape, len(walk.trace.values[out].shape)
    batch = [a for a in range(len(flow.weight)) if a not in (flow.weight_in, flow.weight_out)]
    own = [a for a in batch if any(varies(w.ids, a) for w in weights)]
    others = [a for a in range(len(flow.data)) if a != flow.data_axis and a not in own]
    x = walk.pool.find(data.ids.permute(*own, *others, flow.data_axis))
    sizes = [x.shape[i] for i in range(len(own))]
    rows, inverse = _rows(walk, x, len(own), out)  # (u, *own, K), (others...)
    wide = any(varies(w.ids, flow.weight_out) for w in weights)
    n = flow.weight.shape[flow.weight_out] if wide else 1
    gaps = rows.reshape(-1) < 0
    keyed = len(gaps) == rows.shape[-1] and any(
        walk.uses.key_axes(w, [flow.weight_in]) for w in weights
    )
    rows = torch.where(rows < 0, rows.max(), rows) if keyed else _with_origins(walk, rows)
    each = keyed and not gaps.any() and len(torch.unique(rows)) < len(gaps)
    rows = rows if own or each else _copies(walk, rows, flow)
    u = rows.shape[0]
    keys = {k: w.hidden[k][0] for w in weights for k in w.hidden if k >= 0 and k not in data.hidden}
    ids, hidden = _new(walk, out, flow, (u, *sizes, n), keys, rows, weights)
    if keyed and gaps.any():
        weights = [w for w in weights for w in _without(walk, w, gaps, flow, ids.reshape(-1))]
    source = rows.unsqueeze(-1).expand(*rows.shape, n)
    if each:
        source = _copied(walk, source.reshape(-1)).view(source.shape)
    _put(walk, flow, weights, own, source, data, ids, hidden)
    if u > 1:
        _tell_apart(walk, rows, ids)
    if flow.weight_out != flow.weight_in and not wide:
        ids = ids.expand(*ids.shape[:-1], flow.weight.shape[flow.weight_out])
    back = _back(flow, rank)
    where = [back[a] for a in own] + [back[a] for a in others] + [flow.out_axis]
    if u == 1:
        full = ids[0].view(*sizes, *(1,) * len(others), ids.shape[-1])
        full = full.expand(*sizes, *(flow.data.shape[a] for a in others), ids.shape[-1])
    else:
        full = ids[inverse.reshape(-1)].view(
            *(flow.data.shape[a] for a in others), *sizes, ids.shape[-1]
        )
        k = len(others)
        full = full.permute(*range(k, k + len(sizes)), *range(k), k + len(sizes))
    return Neurons(place(full, where, shape), hidden)


def _tell_apart(walk: Walk, rows: Tensor, ids: Tensor) -> None:
    """Heads that share a weight: one node for all neurons of a row, before and behind the
    weight."""
    groups = [walk.pool.groups[i] for i in rows[..., 0].reshape(-1).tolist()]
    site = walk.pool.new(
        "row", rows[..., 0].numel(), NodeType.SHARED, walk.pool.layer(rows), groups
    )
    nodes = site.ids.view(*rows.shape[:-1], 1)
    walk.uses.connect(EdgeType.SHARE, rows, nodes.expand(rows.shape), 1)
    walk.uses.connect(EdgeType.SHARE, nodes.expand(ids.shape), ids, 1)


def _rows(walk: Walk, x: Tensor, own: int, out: int) -> tuple[Tensor, Tensor]:
    """The different rows ``(u, *own, K)`` of neurons that a weight reads, and which of them every
    place reads.

    Entries of an input at different places are one neuron; neurons of different sites that take
    turns (tokens of two kinds) flow into new ones; several rows are left where heads share a
    weight.
    """
    lead, k = x.shape[:own], x.shape[-1]
    strides = x.stride()
    small = x[
        tuple(
            slice(None) if s or a < own or a == x.ndim - 1 else slice(0, 1)
            for a, s in enumerate(strides)
        )
    ]
    places = small.shape[own:-1]
    # (R, own * K)
    table = small.reshape(*lead, prod(places), k).movedim(-2, 0).reshape(prod(places), -1)
    if len(table) > 1 and (table != table[:1]).any() and is_raw(walk, table):
        walk.pool.unite(
            table, table.amax(0, keepdim=True).expand_as(table)
        )  # any but what is padded
        table = walk.pool.find(table)
    unique, inverse = unique_rows(table)
    if len(unique) > 1:
        unique, inverse = _without_gaps(unique, inverse)
    if len(unique) > 1 and _of_different_sites(walk, unique):
        merged = [Neurons(unique[0])]
        for row in unique[1:]:
            merged = merge(walk, [*merged, Neurons(row)], "other", out)
        if len(merged) == 1:
            unique, inverse = merged[0].ids[None], torch.zeros_like(inverse)
    full = inverse.view(places).expand(x.shape[own:-1])
    return unique.view(len(unique), *lead, k), full


def _without_gaps(unique: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that are others with neurons missing (padding) are those."""
    left = (unique >= 0).sum(1).argsort(descending=True, stable=True)
    kept: list[int] = []
    number = torch.zeros(len(unique), dtype=torch.long)
    while len(left):  # the fullest first
        row = unique[left[0]]
        same = ((unique[left] < 0) | (unique[left] == row)).all(1)
        number[left[same]] = len(kept)
        kept.append(int(left[0]))
        left = left[~same]
    return unique[kept], number[inverse]


def _of_different_sites(walk: Walk, rows: Tensor) -> bool:
    sets = [set(walk.pool.site_number(torch.unique(r[r >= 0])).tolist()) for r in rows]
    return all(not (a & b) for i, a in enumerate(sets) for b in sets[i + 1 :])


def _copies(walk: Walk, rows: Tensor, flow: Contraction) -> Tensor:
    """Neurons that a weight reads several times, where which time is which may be exchanged: nodes
    for each time.

    Streams that start as one, or the values that a group of queries shares.
    """
    axis = walk.solved.axis(walk.solved.axes[flow.weight.value][flow.weight_in])
    if not isinstance(axis, Product):
        return rows
    table = rows.view(len(rows), *(p.size for p in axis.parts))
    moves = [isinstance(p, Leaf) and p.size > 1 for p in axis.parts]
    several = [varies(table, a + 1) for a in range(len(moves))]
    if not any(m and not s for m, s in zip(moves, several, strict=True)):
        return rows
    sizes = [
        len(rows),
        *(p.size if m or s else 1 for p, m, s in zip(axis.parts, moves, several, strict=True)),
    ]
    read = table[tuple(slice(0, n) for n in sizes)].reshape(-1)
    return _copied(walk, read).view(sizes).expand(table.shape).reshape(rows.shape)


def _copied(walk: Walk, read: Tensor) -> Tensor:
    """A node of its own for each entry of a list of nodes."""
    ids = walk.made.known("copy", (read,))
    if ids is None:
        groups = [walk.pool.groups[i] for i in read.tolist()]
        site = walk.pool.new("copies", len(read), NodeType.SHARED, walk.pool.layer(read), groups)
        walk.uses.connect(EdgeType.SHARE, read, site.ids)
        walk.made.add(Making("copy", (read,), site.ids, walk.uses.module))
        ids = site.ids
    return ids


def _with_origins(walk: Walk, rows: Tensor) -> Tensor:
    """Places where a weight reads no neuron get nodes of their own."""
    gaps = rows < 0
    if not gaps.any():
        return rows
    site = walk.pool.new("origin", int(gaps.sum()), NodeType.ORIGIN, walk.pool.layer(rows))
    rows = rows.clone()
    rows[gaps] = site.ids
    return rows


def _new(
    walk: Walk, out: int, flow: Contraction, sizes: Sequence[int], keys: dict[int, int], rows: Tensor,
    weights: Sequence[Entries],
) -> tuple[Tensor, dict[int, tuple[int, int]]]:  # fmt: skip
    """New neurons over some axes, and over hidden ones."""
    count, hidden = prod(sizes), {}
    times = 1
    for key, size in keys.items():
        hidden[key] = (size, count * times)
        times *= size
    name = walk.uses.names[weights[0].parameter]
    axes = [flow.out_axis] if sizes[-1] > 1 else []
    layer = walk.pool.layer(rows) + 1
    site = walk.new_site(name, (times, *sizes), NodeType.HIDDEN, layer, out, axes)
    return site.ids[:count].view(*sizes), hidden


def _put(
    walk: Walk, flow: Contraction, weights: Sequence[Entries], own: list[int], source: Tensor, data: Neurons,
    ids: Tensor, hidden: dict[int, tuple[int, int]],
) -> None:  # fmt: skip
    """The edges of all tensors that the weight is made of, over the axes ``(u, *own, K, N)``."""
    shape, n = source.shape, source.shape[-1]
    destination = ids.unsqueeze(-2).expand(shape)
    for w in weights:
        x = w.ids
        for axis in reversed(range(x.ndim)):
            if axis not in (*own, flow.weight_in, flow.weight_out):
                x = x.select(axis, 0)
        left = [a for a in range(w.ids.ndim) if a in (*own, flow.weight_in, flow.weight_out)]
        x = x.permute(
            *(left.index(a) for a in own), left.index(flow.weight_in), left.index(flow.weight_out)
        )
        if n == 1:
            x = x.narrow(-1, 0, 1)
        e = replace(w, ids=x.unsqueeze(0).expand(shape))
        _edges(
            walk,
            e,
            source,
            destination,
            data,
            hidden,
            EdgeType.LINEAR,
            len(shape) - 2,
            len(shape) - 1,
        )


def _edges(
    walk: Walk, e: Entries, source: Tensor, destination: Tensor, data: Neurons, hidden: dict[int, tuple[int, int]],
    type: EdgeType, along_in: int, along_out: int,
) -> None:  # fmt: skip
    """A tensor that varies along both sides is a weight; else it scales one side (weight
    normalisation)."""
    e, source, destination = explicit(e, source, destination, data.hidden, hidden)
    more = e.ids.ndim - destination.ndim
    both = [
        e.ids.shape[a + e.ids.ndim - along_out - 1 if more else a] == 1 or varies(e.ids, a)
        for a in (along_in + more, along_out + more)
    ]
    if all(both):
        walk.uses.weight(e, source, destination, type)
    else:
        role = "scale" if e.role == "bias" else e.role
        walk.uses.attach(e, source if both[0] else destination, *ROLES_OF_VECTORS[role])


def _convolve(
    walk: Walk, out: int, flow: Contraction, data: Neurons, weights: Sequence[Entries]
) -> Neurons:
    """Convolutions: entries of a kernel are parallel edges."""
    shape = walk.trace.values[out].shape
    others = [a for a in range(len(flow.data)) if a != flow.data_axis]
    x = walk.pool.find(data.ids.permute(*others, flow.data_axis))
    rows, _ = _rows(walk, x, 0, out)  # (u, C)
    rows = _with_origins(walk, rows)
    transposed = flow.weight_in == 0
    width = flow.weight.shape
    g, kernel = flow.groups, width[2:]
    n = width[1] * g if transposed else width[0]
    ids, hidden = _new(walk, out, flow, (n,), {}, rows, weights)
    tail = (1,) * len(kernel)
    split = (g, width[0] // g, width[1])
    if transposed:
        source = rows.view(-1, g, width[0] // g, 1, *tail)
        destination = ids.view(1, g, 1, width[1], *tail)
    else:
        source = rows.view(-1, g, 1, width[1], *tail)
        destination = ids.view(1, g, width[0] // g, 1, *tail)
    full = (rows.shape[0], *split, *kernel)
    for w in weights:
        x = w.ids
        try:
            x = x.view(*split, *kernel)
        except RuntimeError:
            x = w.real().ids.reshape(*split, *kernel)
        e = replace(w, ids=x.unsqueeze(0).expand(full))
        type = EdgeType.TRANSPOSED if transposed else EdgeType.CONVOLUTION
        inner, outer = (2, 3) if transposed else (3, 2)
        _edges(
            walk, e, source.expand(full), destination.expand(full), data, hidden, type, inner, outer
        )
    return Neurons(place(ids, [flow.out_axis], shape), hidden)
