"""Neurons with neurons: queries meet keys, attention mixes values, routers weigh experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...symmetry import Contraction
from ._flows import Flow, Neurons, distinct, place, unique_rows, varies
from ._groups import groups_along
from ._join import is_raw, merge
from ._made import Making
from ..template._schema import EdgeType, NodeType

if TYPE_CHECKING:
    from ._walk import Walk


def couple(
    walk: Walk, out: int, flow: Contraction, left: Sequence[Neurons], right: Sequence[Neurons]
) -> Flow:
    """Queries with keys: pairs of dimensions are coupled, and all those of one head meet in a node.

    Shapes:
        - **left** ``(..., n, k)``, **right** ``(..., k, m)``
    """
    shape = walk.trace.values[out].shape
    k_left, k_right = flow.data_axis, flow.weight_in
    q = next((n for n in left if varies(n.ids, k_left)), None)
    k = next((n for n in right if varies(n.ids, k_right)), None)
    rank = len(shape)
    onto_left = [a if a < len(flow.data) - 1 else None for a in range(len(flow.data))]
    onto_right: list[int | None] = list(range(len(flow.weight)))
    onto_right[k_right], onto_right[flow.weight_out] = None, rank - 1
    parts = [
        Neurons(place(n.ids, onto_left, shape), n.hidden) for n in left if not varies(n.ids, k_left)
    ] + [
        Neurons(place(n.ids, onto_right, shape), n.hidden)
        for n in right
        if not varies(n.ids, k_right)
    ]
    if q is not None and k is not None and not q.hidden and not k.hidden:
        parts.insert(0, _heads(walk, out, q.ids, k.ids.transpose(-1, -2)))
    before = [walk.pool.find(distinct(p.ids)) for p in parts]
    heads = [_are_heads(walk, b) for b in before]
    attends = len(parts) == 2 and heads[0] != heads[1]
    merged = merge(walk, parts, "multiply", out, outer=attends)
    if attends and len(merged) == 1:
        walk.mixes.append((before[heads.index(False)], walk.pool.find(distinct(merged[0].ids))))
    return Flow(tuple(merged))


def _are_heads(walk: Walk, ids: Tensor) -> bool:
    numbers = torch.unique(walk.pool.site_number(ids[ids >= 0])).tolist()
    return bool(numbers) and all(walk.pool.sites[n].type == NodeType.HEAD for n in numbers)


def _heads(walk: Walk, out: int, q: Tensor, k: Tensor) -> Neurons:
    """The head nodes of ``q`` ``(..., n, d)`` and ``k`` ``(..., m, d)``."""
    shape = walk.trace.values[out].shape
    q, k = walk.pool.find(_single(walk, q)), walk.pool.find(_single(walk, k))
    attends = k.shape[-2] == 1  # else a sum of products, over experts for instance
    q, k = q.unsqueeze(-2), k.unsqueeze(-3)
    sizes = torch.broadcast_shapes(q.shape, k.shape)
    q, k = q.expand(sizes), k.expand(sizes)
    table = torch.cat([q.reshape(-1, sizes[-1]), k.reshape(-1, sizes[-1])], 1)
    unique, inverse = unique_rows(table)
    first, second = unique[:, : sizes[-1]], unique[:, sizes[-1] :]
    flat = first.reshape(-1), second.reshape(-1)
    known = walk.made.known("heads", flat)
    if known is not None:
        return Neurons(known[inverse].view(sizes[:-1]).expand(shape))
    groups = _head_groups(walk, out, inverse.view(sizes[:-1]), len(unique))
    layer = max(walk.pool.layer(q), walk.pool.layer(k)) + 1
    name, type = ("heads", NodeType.HEAD) if attends else ("products", NodeType.PRODUCT)
    site = walk.pool.new(f"{name} {len(walk.pool.sites)}", len(unique), type, layer, groups)
    walk.made.add(Making("heads", flat, site.ids, walk.uses.module))
    walk.uses.connect(EdgeType.COUPLING, first, second)
    for operand, part in enumerate((first, second)):
        type = EdgeType.TO_HEAD if attends else EdgeType.PRODUCT
        walk.uses.connect(type, part, site.ids[:, None].expand(part.shape), operand)
    if attends:
        walk.heads.append((torch.unique(first), torch.unique(second)))
    return Neurons((inverse + site.start).view(sizes[:-1]).expand(shape))


def _single(walk: Walk, ids: Tensor) -> Tensor:
    """One row for all positions where they show the same neurons; entries of inputs are made to."""
    if not varies(ids, ids.ndim - 2):
        return ids.narrow(-2, 0, 1)
    if is_raw(walk, ids):
        walk.pool.unite(ids, ids.narrow(-2, 0, 1).expand_as(ids))
        return ids.narrow(-2, 0, 1)
    full = ids.amax(-2, keepdim=True)  # where positions are padded there is nothing
    return full if bool(((ids == full) | (ids < 0)).all()) else ids


def _head_groups(walk: Walk, out: int, numbers: Tensor, count: int) -> list[str]:
    """The group that moves every head: that of the one axis along which heads differ."""
    axes = [a for a in range(numbers.ndim) if varies(numbers, a)]
    if len(axes) != 1:
        return [""] * count
    along = groups_along(walk.solved.axis(walk.solved.axes[out][axes[0]]))
    line = numbers.movedim(axes[0], 0).reshape(numbers.shape[axes[0]], -1)[:, 0].tolist()
    return [
        along[line.index(i)] if i in line and len(along) == len(line) else "" for i in range(count)
    ]
