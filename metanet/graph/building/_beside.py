"""Values put together side by side: concatenations, and what is written into part of a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...tracing import Op, references
from ._flows import Entries, Flow, Neurons, place, varies
from ._join import merge
from ..template._schema import EdgeType, NodeType
from ._uses import ROLES_OF_VECTORS

if TYPE_CHECKING:
    from ._walk import Walk


def concatenate(walk: Walk, op: Op) -> Flow:
    """Values one behind the other."""
    stacked = op.name == "aten.stack"
    dim = _dim(walk, op, op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0))
    numbers = [r.value for r in references(op.args[0])]
    numbers = [n for n in numbers if 0 not in walk.trace.values[n].shape]
    flows = [walk.flows.get(n, Flow()) for n in numbers]
    shapes = [walk.trace.values[n].shape for n in numbers]
    if stacked:
        shapes, flows = (
            [(*s[:dim], 1, *s[dim:]) for s in shapes],
            [_unsqueezed(f, dim) for f in flows],
        )
    return _side_by_side(walk, op.outputs[0], numbers, shapes, flows, dim, stacked)


def write(walk: Walk, op: Op) -> Flow | None:
    """A value written into another: what is left before and behind, with the value between."""
    names = ("dim", "start", "end", "step") if op.name == "aten.slice_scatter" else ("dim", "index")
    given = {**dict(zip(names, op.args[2:], strict=False)), **op.kwargs}
    into, new = op.args[0].value, op.args[1].value
    dim = _dim(walk, op, given.get("dim", 0))
    size = walk.trace.values[into].shape[dim]
    single = "index" in given
    start = given["index"] if single else given.get("start") or 0
    start = min(max(start + size if start < 0 else start, 0), size)
    count = 1 if single else walk.trace.values[new].shape[dim]
    if given.get("step", 1) != 1:
        return None
    flow, below = walk.flows.get(new, Flow()), walk.flows.get(into, Flow())
    numbers, shapes, flows = [], [], []
    for number, first, length in (
        (into, 0, start),
        (new, start, count),
        (into, start + count, size - start - count),
    ):
        if length:
            shape = walk.trace.values[into].shape
            numbers.append(number)
            shapes.append((*shape[:dim], length, *shape[dim + 1 :]))
            piece = _narrowed(below, dim, first, length) if number == into else flow
            flows.append(_unsqueezed(piece, dim) if single and number == new else piece)
    return _side_by_side(walk, op.outputs[0], numbers, shapes, flows, dim, False)


def _dim(walk: Walk, op: Op, dim: int) -> int:
    return dim + len(walk.trace.values[op.outputs[0]].shape) if dim < 0 else dim


def _side_by_side(
    walk: Walk, out: int, numbers: Sequence[int], shapes: Sequence[tuple[int, ...]], flows: list[Flow], dim: int,
    stacked: bool,
) -> Flow:  # fmt: skip
    """Parameters among the pieces act on the neurons of their neighbours, or are neurons."""
    rows = [e for f in flows for e in f.entries if e.hidden]
    if len({e.parameter for e in rows}) > 1 and dim == len(shapes[0]) - 1:  # rows of several tables
        flows = [
            Flow((activate(walk, n, dim, f.entries),)) if f.entries and not f.neurons else f
            for n, f in zip(numbers, flows, strict=True)
        ]
    if not any(f.neurons for f in flows):
        return Flow(entries=_entries(flows, shapes, dim))
    like = next(f for f in flows if f.neurons).neurons[0].ids
    apart = any(varies(n.ids, dim) for f in flows for n in f.neurons)
    for i, f in enumerate(flows):
        if f.entries and not f.neurons:
            if apart or stacked:
                flows[i] = Flow((activate(walk, numbers[i], None if stacked else dim, f.entries),))
            else:
                ids = like.narrow(dim, 0, 1).expand(shapes[i])
                for e in f.entries:
                    walk.uses.attach(e, ids, NodeType.BIAS, EdgeType.BIAS)
                flows[i] = Flow((Neurons(ids),))
        elif (
            not f and not apart and not stacked
        ):  # zeros before the first token: positions of the same neurons
            flows[i] = Flow((Neurons(like.narrow(dim, 0, 1).expand(shapes[i])),))
    parts = [list(f.neurons) for f in flows]
    if not apart and not stacked and any(s[dim] > 1 for s in shapes):
        parts = _one_stream(walk, parts, shapes, dim, out)
    slots = []
    for slot in range(max(map(len, parts))):
        ids = [
            p[slot].ids if slot < len(p) else torch.full((), -1).expand(s)
            for p, s in zip(parts, shapes, strict=False)
        ]
        hidden = next((p[slot].hidden for p in parts if slot < len(p)), {})
        slots.append(Neurons(_cat(ids, dim), hidden))
    return Flow(tuple(slots))


def _one_stream(
    walk: Walk, parts: list[list[Neurons]], shapes: Sequence[tuple[int, ...]], dim: int, out: int
) -> list[list[Neurons]]:
    """Positions of several sites behind one another: all of them flow into one set of neurons."""
    firsts = [p[0].ids.narrow(dim, 0, 1) if p else None for p in parts]
    known = [walk.pool.find(f) for f in firsts if f is not None]
    if (
        len(known) < 2
        or all(torch.equal(k, known[0]) for k in known)
        or any(k.shape != known[0].shape for k in known)
    ):
        return parts
    merged = [Neurons(known[0])]
    for k in known[1:]:
        merged = merge(walk, [*merged, Neurons(k)], "other", out)
    if len(merged) > 1:
        return parts
    return [
        [Neurons(merged[0].ids.expand(s)), *p[1:]] if p else p
        for p, s in zip(parts, shapes, strict=True)
    ]


def _cat(ids: Sequence[Tensor], dim: int) -> Tensor:
    """A concatenation that keeps repeated axes repeated."""
    keep = [
        any(t.stride(a) != 0 and t.shape[a] > 1 for t in ids) or a == dim
        for a in range(ids[0].ndim)
    ]
    sizes = list(ids[0].shape)
    small = [t[tuple(slice(None) if k else slice(0, 1) for k in keep)] for t in ids]
    sizes[dim] = sum(t.shape[dim] for t in ids)
    return torch.cat(small, dim).expand(sizes)


def _entries(
    flows: Sequence[Flow], shapes: Sequence[tuple[int, ...]], dim: int
) -> tuple[Entries, ...]:
    out = []
    for i, f in enumerate(flows):
        for e in f.entries:
            ids = [
                e.real().ids if j == i else torch.full((), -1).expand(s)
                for j, s in enumerate(shapes)
            ]
            new = replace(e, ids=_cat(ids, dim))
            for j, old in enumerate(out):  # the same parameter side by side with itself
                same = (old.parameter, old.hidden, old.role) == (
                    new.parameter,
                    new.hidden,
                    new.role,
                )
                if same and bool(((old.ids < 0) | (new.ids < 0)).all()):
                    out[j] = replace(old, ids=torch.where(old.ids < 0, new.ids, old.ids))
                    break
            else:
                out.append(new)
    return tuple(out)


def _narrowed(flow: Flow, dim: int, start: int, length: int) -> Flow:
    neurons = tuple(Neurons(n.ids.narrow(dim, start, length), n.hidden) for n in flow.neurons)
    return Flow(
        neurons, tuple(replace(e, ids=e.ids.narrow(dim, start, length)) for e in flow.entries)
    )


def _unsqueezed(flow: Flow, dim: int) -> Flow:
    neurons = tuple(Neurons(n.ids.unsqueeze(dim), n.hidden) for n in flow.neurons)
    return Flow(neurons, tuple(replace(e, ids=e.ids.unsqueeze(dim)) for e in flow.entries))


def activate(
    walk: Walk, value: int, axis: int | None, entries: Sequence[Entries] | None = None
) -> Neurons:
    """A parameter that flows like an activation: neurons along one of its axes (its last), fed by
    the others' rows.

    Where these move by the item of another axis (states of each channel's own), there are neurons
    for all its items.
    """
    entries = walk.flows[value].entries if entries is None else entries
    shape = entries[0].ids.shape
    axis = len(shape) - 1 if axis is None else axis
    own = min(axis, len(walk.trace.values[value].shape) - 1)
    name = walk.uses.names[entries[0].parameter]
    along = [*sorted({a for e in entries for a in walk.uses.key_axes(e, [axis])}), axis]
    sizes = [shape[a] for a in along]
    site = walk.new_site(name, sizes, NodeType.HIDDEN, 1, value, [own])
    ids = place(site.ids.view(sizes), along, shape)
    for e in entries:
        walk.uses.attach(e, ids, *ROLES_OF_VECTORS[e.role])
    return Neurons(ids)
