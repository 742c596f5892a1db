"""Tensors that the pass over the recording found no place for: their symmetries say which neurons
they touch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from ...symmetry import Axis, Derivation
from ..template._blocks import strided_integers
from ..template._schema import EdgeType, NodeType
from ._contents import Entries, whole
from ._groups import groups_along, keys_in, names_in
from ._ids import NONE, only_varying
from ._pool import Pool
from ._state import State
from ._uses import Uses

NOT_READ = "no output depends on it"


def place_leftovers(state: State) -> list[str]:
    """Give every entry that has no edge yet its edge; says which tensors these were, and why."""
    warnings = []
    leftovers = _Leftovers(state.solved, state.pool, state.uses)
    is_read = _read(state)
    for parameter, name in state.uses.names.items():
        entries = _without_edges(state.uses, parameter)
        if entries is None:
            continue
        is_part = not entries.strided
        if is_part and leftovers.extend(entries):
            continue
        how = leftovers.place(entries)
        part = "part of it" if is_part else "it"
        why = f"what {part} does in the network was not followed"
        warnings.append(f"{name}: {why if parameter in is_read else NOT_READ}; {how}")
    return warnings


def _without_edges(uses: Uses, parameter: int) -> Entries | None:
    """The entries of a parameter that have no edge, ``None`` if all have."""
    shape = uses.shapes[parameter]
    marks = uses.covered.marks.get(parameter)
    if not prod(shape) or (marks is not None and marks.all()):
        return None
    if marks is None or not marks.any():
        return whole(parameter, shape)
    ids = torch.arange(prod(shape)).view(shape)
    return Entries(parameter, torch.where(marks.view(shape), NONE, ids))


def _read(state: State) -> set[int]:
    """Values that the outputs are computed from, with the example's input."""

    def is_empty(number: int) -> bool:
        return 0 in state.shape(number)

    needed = {n for n in state.trace.outputs if not is_empty(n)}
    for op in reversed(state.trace.ops):
        results = [n for n in op.outputs if n is not None and not is_empty(n)]
        if needed.intersection(results):
            needed.update(op.inputs())
    return needed


@dataclass
class _Leftovers:
    """Where entries go by the symmetries of their tensor.

    Attributes:
        known: the first neurons along every axis, by the solved factors of the axis.
    """

    solved: Derivation
    pool: Pool
    uses: Uses
    known: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for use in self.uses.of_parameters:
            shape = self.uses.shapes[use.parameter]
            for axis, expr in enumerate(self.solved.axes[use.parameter]):
                key = self.solved.leaves.expand(expr)
                if not key or key in self.known:
                    continue
                line = torch.arange(shape[axis]) * prod(shape[axis + 1 :])
                sides = [side for side in use.ends(line) if _are_neurons(side)]
                if sides:
                    self.known[key] = sides[0]

    def extend(self, entries: Entries) -> bool:
        """Rows of a table that the example did not reach act as those that it did.

        Of positions 0 to 9 the example has 0 to 3: then 4 to 9 go to the neurons that row 0 goes to.
        """
        uses = [
            u for u in self.uses.of(entries.parameter) if u.type in (EdgeType.TABLE, EdgeType.BIAS)
        ]
        if len(uses) != 1:
            return False
        ids, shape = entries.ids, self.uses.shapes[entries.parameter]
        for axis in range(len(shape)):
            has_edge = (ids < 0).movedim(axis, 0).reshape(shape[axis], -1)
            if not (has_edge == has_edge[:, :1]).all():
                continue
            row = int(has_edge[:, 0].nonzero()[0])
            like = torch.arange(prod(shape)).view(shape).select(axis, row)
            _, ends = uses[0].ends(like.reshape(-1))
            if (ends < 0).any():
                continue
            others = ids.index_select(axis, (~has_edge[:, 0]).nonzero()[:, 0])
            neurons = ends.view(like.shape).unsqueeze(axis).expand(others.shape)
            new = Entries(entries.parameter, others)
            self.uses.attach(new, neurons, NodeType.ROW, EdgeType.TABLE)
            return True
        return False

    def place(self, entries: Entries) -> str:
        """Edges between the neurons of its axes: from the last that move to the first."""
        parameter, name = entries.parameter, self.uses.names[entries.parameter]
        axes, shape = self.solved.spec.tensors[name].axes, self.uses.shapes[parameter]
        sides = _sides([self._keys(axes, a) for a in range(len(axes))], list(_moving(axes, shape)))
        if not sides:
            site = self.pool.new(name, 1, NodeType.TENSOR, 0)
            node = site.ids[0].expand(shape)
            self.uses.weight(entries, node, node, EdgeType.TENSOR)
            return "its edges are at a node of their own"
        nodes = [self._neurons(parameter, side) for side in sides]
        if len(nodes) == 1:
            self.uses.attach(entries, nodes[0], NodeType.TENSOR, EdgeType.TENSOR)
        else:
            self.uses.weight(entries, nodes[1], nodes[0], EdgeType.TENSOR)
        return "its edges join the neurons that its symmetries name"

    def _keys(self, axes: tuple[Axis, ...], axis: int) -> list[int]:
        """The other axes whose items say what may be done to an axis."""
        keys = keys_in(axes[axis], {g.name: g.keys for g in self.solved.spec.groups})
        return [b for b, other in enumerate(axes) if b != axis and names_in(other) & keys]

    def _neurons(self, parameter: int, side: list[int]) -> Tensor:
        """The neurons over some axes of a tensor, new ones unless there are some."""
        name, shape = self.uses.names[parameter], self.uses.shapes[parameter]
        exprs = self.solved.axes[parameter]
        key = tuple(leaf for a in side for leaf in self.solved.leaves.expand(exprs[a]))
        sizes = [shape[a] for a in side]
        count = prod(sizes)
        if key not in self.known or len(self.known[key]) != count:
            along = groups_along(self.solved.spec.tensors[name].axes[side[-1]])
            groups = along * (count // len(along))
            self.known[key] = self.pool.new(name, count, NodeType.HIDDEN, 1, groups).ids
        strides = {a: prod(sizes[i + 1 :]) for i, a in enumerate(side)}
        index = strided_integers(shape, [strides.get(a, 0) for a in range(len(shape))])
        return self.known[key][only_varying(index)].expand(shape)


def _are_neurons(nodes: Tensor) -> bool:
    """Whether there is a node for every item of an axis, and no two are the same."""
    return bool((nodes >= 0).all()) and len(torch.unique(nodes)) == len(nodes)


def _moving(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> Iterator[int]:
    """The axes that some group moves."""
    for number, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        if size > 1 and any(groups_along(axis)):
            yield number


def _sides(keys: list[list[int]], moving: list[int]) -> list[list[int]]:
    """The axes of each of the two sets of neurons that a tensor lies between, or of the one.

    Stacked matrices: what is keyed by the stack is there once for each of its items. ``(experts,
    out, in)`` with both keyed by the experts lies between ``(experts, out)`` and ``(experts, in)``.

    Args:
        keys: for every axis the others that say how it moves.
        moving: the axes that move.
    """
    stack = set().union(*(keys[axis] for axis in moving))
    single = [axis for axis in moving if axis not in stack] or moving
    if not single:
        return []
    *first, last = single
    if not first:
        return [[*keys[last], last]]
    ends = (first, [last])
    return [sorted(set(end).union(*(keys[axis] for axis in end))) for end in ends]
