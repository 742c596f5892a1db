"""Neurons with neurons: queries meet keys, attention mixes values, routers weigh experts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...symmetry import Contraction
from ..template._schema import EdgeType, NodeType
from ._contents import Content, Neurons
from ._ids import distinct, place, unique_rows, varies, varying
from ._made import Making
from ._merge import merge
from ._state import State


def couple(
    state: State, out: int, flow: Contraction, left: Sequence[Neurons], right: Sequence[Neurons]
) -> Content:
    """Queries with keys: pairs of dimensions are coupled, and all those of one head meet in a node.

    ::

        q1 --- k1         two dimensions of a head: COUPLING edges between them,
        q2 --- k2         and TO_HEAD edges of all four to the head's node
          \\   /
          head            what attention makes of values: their products with heads

    Shapes:
        - **left** ``(..., n, k)``, **right** ``(..., k, m)``
    """
    shape = state.shape(out)
    summed_left, summed_right = flow.data_axis, flow.weight_in
    query = next((n for n in left if varies(n.ids, summed_left)), None)
    key = next((n for n in right if varies(n.ids, summed_right)), None)
    last = len(shape) - 1
    onto_left = [a if a < len(flow.data) - 1 else None for a in range(len(flow.data))]
    onto_right: list[int | None] = list(range(len(flow.weight)))
    onto_right[summed_right], onto_right[flow.weight_out] = None, last
    parts = _along_others(left, summed_left, onto_left, shape)
    parts += _along_others(right, summed_right, onto_right, shape)
    if query is not None and key is not None and not query.hidden and not key.hidden:
        parts.insert(0, _heads(state, out, query.ids, key.ids.transpose(-1, -2)))
    return Content(tuple(_weighed_by_heads(state, parts)))


def _along_others(
    neurons: Sequence[Neurons], summed: int, axes: Sequence[int | None], shape: tuple[int, ...]
) -> list[Neurons]:
    """What does not vary along the axis that is summed over, over the axes of the product."""
    return [
        Neurons(place(n.ids, axes, shape), n.hidden) for n in neurons if not varies(n.ids, summed)
    ]


def _weighed_by_heads(state: State, parts: Sequence[Neurons]) -> list[Neurons]:
    """The product of all parts; where one is heads and the other is not, attention mixes values."""
    before = [state.pool.find(distinct(part.ids)) for part in parts]
    heads = [_are_heads(state, ids) for ids in before]
    attends = len(parts) == 2 and heads[0] != heads[1]
    merged = merge(state, parts, "multiply", outer=attends)
    if attends and len(merged) == 1:
        values, mixed = before[heads.index(False)], distinct(merged[0].ids)
        state.mixes.append((values, state.pool.find(mixed)))
    return merged


def _are_heads(state: State, ids: Tensor) -> bool:
    sites = state.pool.sites_of(ids)
    return bool(sites) and all(site.type == NodeType.HEAD for site in sites)


def _heads(state: State, out: int, query: Tensor, key: Tensor) -> Neurons:
    """The head nodes of queries ``(..., n, d)`` and keys ``(..., m, d)``: one for each different
    row of ``d`` pairs."""
    shape = state.shape(out)
    query, key = state.pool.find(_single(state, query)), state.pool.find(_single(state, key))
    attends = key.shape[-2] == 1  # else a sum of products, over experts for instance
    query, key = torch.broadcast_tensors(query.unsqueeze(-2), key.unsqueeze(-3))
    *sizes, width = query.shape
    rows, number = unique_rows(torch.cat([query.reshape(-1, width), key.reshape(-1, width)], 1))
    first, second = rows[:, :width], rows[:, width:]
    flat = first.reshape(-1), second.reshape(-1)
    nodes = state.made.known("heads", flat)
    if nodes is None:
        groups = _head_groups(state, out, number.view(sizes), len(rows))
        nodes = _make_heads(state, first, second, groups, attends)
        state.made.add(Making("heads", flat, nodes, state.uses.module))
    return Neurons(nodes[number].view(sizes).expand(shape))


def _make_heads(
    state: State, queries: Tensor, keys: Tensor, groups: list[str], attends: bool
) -> Tensor:
    """A node for each row of queries ``(heads, d)`` and keys, with the edges to it."""
    pool = state.pool
    layer = max(pool.layer(queries), pool.layer(keys)) + 1
    name, type = ("heads", NodeType.HEAD) if attends else ("products", NodeType.PRODUCT)
    nodes = pool.new(f"{name} {len(pool.sites)}", len(queries), type, layer, groups).ids
    state.uses.connect(EdgeType.COUPLING, queries, keys)
    edge = EdgeType.TO_HEAD if attends else EdgeType.PRODUCT
    for operand, part in enumerate((queries, keys)):
        state.uses.connect(edge, part, nodes[:, None].expand(part.shape), operand)
    if attends:
        state.heads.append((torch.unique(queries), torch.unique(keys)))
    return nodes


def _single(state: State, ids: Tensor) -> Tensor:
    """One row for all positions where they show the same neurons; entries of inputs are made to."""
    first = ids.narrow(-2, 0, 1)
    if not varies(ids, ids.ndim - 2):
        return first
    if state.pool.is_raw(ids):
        state.pool.unite(ids, first.expand_as(ids))
        return first
    full = ids.amax(-2, keepdim=True)  # where positions are padded there is nothing
    return full if bool(((ids == full) | (ids < 0)).all()) else ids


def _head_groups(state: State, out: int, numbers: Tensor, count: int) -> list[str]:
    """The group that moves every head: that of the one axis along which heads differ."""
    axes = varying(numbers)
    if len(axes) != 1:
        return [""] * count
    (axis,) = axes
    along = state.groups_along(out, axis)
    line = numbers.movedim(axis, 0).reshape(numbers.shape[axis], -1)[:, 0].tolist()
    if len(along) != len(line):
        return [""] * count
    group_of = dict(zip(reversed(line), reversed(along), strict=True))  # the first one counts
    return [group_of.get(number, "") for number in range(count)]
