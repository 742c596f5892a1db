"""Tensors that the pass over the recording found no place for: their symmetries say which neurons
they touch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...symmetry import Axis
from ._flows import Entries, strided_integers, whole
from ._groups import groups_along, keys_in, names_in
from ..template._schema import EdgeType, NodeType

if TYPE_CHECKING:
    from ._walk import Walk


NOT_READ = "no output depends on it"


def place_leftovers(walk: Walk) -> list[str]:
    """Give every entry that has no edge yet its edge; says which tensors these were, and why."""
    warnings = []
    known = _known_axes(walk)
    read = _read(walk)
    for parameter, name in walk.uses.names.items():
        shape = walk.uses.shapes[parameter]
        if not prod(shape):
            continue
        covered = walk.uses.covered.get(parameter)
        if covered is not None and covered.all():
            continue
        partly = covered is not None and bool(covered.any())
        if partly:
            ids = torch.arange(prod(shape)).view(shape)
            entries = Entries(parameter, torch.where(covered.view(shape), -1, ids))
        else:
            entries = whole(parameter, shape)
        if not (partly and _extend(walk, entries)):
            how = _place(walk, entries, known)
            part = "part of it" if partly else "it"
            why = (
                f"what {part} does in the network was not followed"
                if parameter in read
                else NOT_READ
            )
            warnings.append(f"{name}: {why}; {how}")
    return warnings


def _read(walk: Walk) -> set[int]:
    """Values that the outputs are computed from, with the example's input."""
    needed = {n for n in walk.trace.outputs if prod(walk.trace.values[n].shape)}
    for op in reversed(walk.trace.ops):
        if any(
            n in needed and prod(walk.trace.values[n].shape) for n in op.outputs if n is not None
        ):
            needed.update(op.inputs())
    return needed


def _known_axes(walk: Walk) -> dict[tuple[int, ...], Tensor]:
    """The first neurons along every axis, by the solved factors of the axis."""
    leaves, known = walk.solved.leaves, {}
    for use in walk.uses.found:
        shape = walk.uses.shapes[use.parameter]
        for axis, expr in enumerate(walk.solved.axes[use.parameter]):
            key = leaves.expand(expr)
            if not key or key in known:
                continue
            step = prod(shape[axis + 1 :])
            line = torch.arange(shape[axis]) * step
            ends = use.ends(line)
            for side in ends:
                if (side >= 0).all() and len(torch.unique(side)) == len(side):
                    known[key] = side
                    break
    return known


def _extend(walk: Walk, entries: Entries) -> bool:
    """Rows of a table that the example did not reach act as those that it did."""
    uses = [
        u
        for u in walk.uses.found
        if u.parameter == entries.parameter and u.type in (EdgeType.TABLE, EdgeType.BIAS)
    ]
    if len(uses) != 1:
        return False
    shape = walk.uses.shapes[entries.parameter]
    ids = entries.ids
    for axis in range(len(shape)):
        done = (ids < 0).movedim(axis, 0).reshape(shape[axis], -1)
        if not (done == done[:, :1]).all():
            continue
        row = int(done[:, 0].nonzero()[0])
        like = torch.arange(prod(shape)).view(shape).select(axis, row)
        ends = uses[0].ends(like.reshape(-1))[1].view(like.shape)
        if (ends < 0).any():
            continue
        chosen = ids.index_select(axis, (~done[:, 0]).nonzero()[:, 0])
        neurons = ends.unsqueeze(axis).expand(chosen.shape)
        walk.uses.attach(Entries(entries.parameter, chosen), neurons, NodeType.ROW, EdgeType.TABLE)
        return True
    return False


def _place(walk: Walk, entries: Entries, known: dict[tuple[int, ...], Tensor]) -> str:
    """Edges between the neurons of its axes: from the last that move to the first."""
    parameter, name = entries.parameter, walk.uses.names[entries.parameter]
    shape, leaves = walk.uses.shapes[parameter], walk.solved.leaves
    exprs = [leaves.expand(e) for e in walk.solved.axes[parameter]]
    axes = list(walk.solved.spec.tensors[name].axes)
    moving = [a for a in range(len(shape)) if shape[a] > 1 and any(groups_along(axes[a]))]
    if not moving:
        site = walk.pool.new(name, 1, NodeType.TENSOR, 0)
        node = site.ids[0].expand(shape)
        walk.uses.weight(entries, node, node, EdgeType.TENSOR)
        return "its edges are at a node of their own"
    keys = _key_axes(
        walk, axes
    )  # stacked matrices: what is keyed by the stack is there once for each
    stack = {b for a in moving for b in keys[a]}
    single = [a for a in moving if a not in stack] or moving
    sides = [[*keys[single[0]], single[0]]] if len(single) == 1 else [
        sorted({b for a in side for b in (a, *keys[a])}) for side in (single[:-1], single[-1:])
    ]  # fmt: skip
    nodes = [_neurons(walk, name, shape, exprs, axes, side, known) for side in sides]
    if len(nodes) == 1:
        walk.uses.attach(entries, nodes[0], NodeType.TENSOR, EdgeType.TENSOR)
    else:
        walk.uses.weight(entries, nodes[1], nodes[0], EdgeType.TENSOR)
    return "its edges join the neurons that its symmetries name"


def _key_axes(walk: Walk, axes: list[Axis]) -> list[list[int]]:
    """For every axis the others whose items say what may be done to it."""
    keys = {g.name: g.keys for g in walk.solved.spec.groups}
    names = [names_in(axis) for axis in axes]
    wanted = [keys_in(axis, keys) for axis in axes]
    return [
        [b for b, names_b in enumerate(names) if b != a and names_b & want]
        for a, want in enumerate(wanted)
    ]


def _neurons(
    walk: Walk,
    name: str,
    shape: tuple[int, ...],
    exprs: list,
    axes: list,
    side: list[int],
    known: dict,
) -> Tensor:
    """The neurons over some axes of a tensor, new ones unless there are some."""
    key = tuple(leaf for a in side for leaf in exprs[a])
    sizes = [shape[a] for a in side]
    if key not in known or len(known[key]) != prod(sizes):
        along = groups_along(axes[side[-1]])
        known[key] = walk.pool.new(
            name, prod(sizes), NodeType.HIDDEN, 1, along * (prod(sizes) // len(along))
        ).ids
    strides = {a: prod(sizes[i + 1 :]) for i, a in enumerate(side)}
    index = strided_integers(shape, [strides.get(a, 0) for a in range(len(shape))])
    small = index[tuple(slice(None) if s else slice(0, 1) for s in index.stride())]
    return known[key][small].expand(shape)
