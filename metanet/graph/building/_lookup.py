"""Tables: rows looked up by the network's input, by position, or by a choice the network makes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...tracing import Op, Ref
from ._flows import Entries, Flow, Neurons
from ..template._schema import EdgeType, NodeType

if TYPE_CHECKING:
    from ._walk import Walk


def look_up(walk: Walk, op: Op) -> bool:
    """Rows of a parameter by number: which row it is becomes a hidden axis. False if this is no
    such look-up."""
    table = op.args[0]
    flow = walk.flows.get(table.value)
    found = _indexed(walk, op)
    if flow is None or flow.neurons or found is None:
        return False
    axes, integers, lead = found
    out = op.outputs[0]
    shape = walk.trace.values[out].shape
    values = [walk.constant(n) for n in integers]
    if (
        len(axes) == 1
        and values[0] is not None
        and _everything_once(values[0], flow.entries[0].ids.shape[axes[0]])
    ):
        return False  # in another order: no row is hidden
    named = next((walk.named[n] for n in integers if n in walk.named), None)
    embeds = named is None and any(v is None for v in values) and "embedding" in op.name
    if named is None and not embeds and len(integers) == 1 and values[0] is None:
        named = integers[0]  # tensors looked up by the same integers are of the same items
    entries = []
    for e in flow.entries:
        if not e.strided:
            return False
        key = -1 - len(e.hidden) - 1000 * e.parameter if named is None else named
        hidden, ids = dict(e.hidden), e.ids
        for axis in axes:
            hidden[key] = (ids.shape[axis], ids.stride(axis))
            key -= 1
        for axis in sorted(axes, reverse=True):
            ids = ids.select(axis, 0)
        for _ in range(len(shape) - ids.ndim):
            ids = ids.unsqueeze(lead)
        entries.append(replace(e, ids=ids.expand(shape), hidden=hidden))
    if embeds:
        walk.put(out, Flow((_embed(walk, out, entries),)))
    else:
        walk.put(out, Flow(entries=tuple(entries)))
    return True


def _indexed(walk: Walk, op: Op) -> tuple[list[int], list[int], int] | None:
    """Axes that are looked up, the values of the integers, and where the new axes stand."""

    def integers(x: object) -> bool:
        return isinstance(x, Ref) and "int" in walk.trace.values[x.value].dtype

    if "embedding" in op.name:
        return ([0], [op.args[1].value], 0) if integers(op.args[1]) else None
    if op.name in ("aten.index", "aten._unsafe_index"):
        given = [(a, i) for a, i in enumerate(op.args[1]) if i is not None]
        if not all(integers(i) for _, i in given):
            return None
        axes = [a for a, _ in given]
        lead = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
        return axes, [i.value for _, i in given], lead
    dim, numbers = op.args[1], op.args[2]
    rank = len(walk.trace.values[op.args[0].value].shape)
    dim = dim + rank if dim < 0 else dim
    if not integers(numbers):
        return None
    if op.name == "aten.index_select":
        return [dim], [numbers.value], dim
    same = all(
        m == n for a, (m, n) in enumerate(
            zip(walk.trace.values[op.args[0].value].shape, walk.trace.values[numbers.value].shape, strict=True)
        ) if a != dim
    )  # fmt: skip
    return ([dim], [numbers.value], dim) if same else None


def _everything_once(integers: Tensor, count: int) -> bool:
    return (
        integers.ndim == 1
        and len(integers) == count
        and len(torch.unique(integers % count)) == count
    )


def _embed(walk: Walk, out: int, entries: list[Entries]) -> Neurons:
    """Neurons along the last axis, fed by one input node per row."""
    shape = walk.trace.values[out].shape
    name = walk.uses.names[entries[0].parameter]
    site = walk.new_site(name, (shape[-1],), NodeType.HIDDEN, 1, out, [len(shape) - 1])
    ids = site.ids.expand(shape)
    for e in entries:
        walk.uses.attach(e, ids, NodeType.INPUT, EdgeType.EMBEDDING)
    return Neurons(ids)
