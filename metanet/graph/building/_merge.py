"""Neurons of several operands, entry by entry: one set of new neurons."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..template._schema import EdgeType, NodeType
from ._contents import Digit, HiddenAxes, HiddenAxis, Neurons
from ._ids import NONE, compact, stepping, unique_pairs
from ._made import Making
from ._recurrence import recurring, unite_by
from ._reduce import normalises
from ._state import State

_KINDS = {
    "add": (NodeType.SUM, EdgeType.RESIDUAL),
    "multiply": (NodeType.PRODUCT, EdgeType.PRODUCT),
    "other": (NodeType.PRODUCT, EdgeType.JOINT),
}


def merge(state: State, parts: Sequence[Neurons], how: str, outer: bool = False) -> list[Neurons]:
    """One set of neurons for all parts that vary together.

    Parts that vary independently of each other stay apart, unless ``outer``: then there is a neuron
    for every pair::

        x (batch, 8)  +  y (batch, 8)             8 sums
        x (heads, 1)  *  y (1, dims)              both stay, or with outer heads x dims products
    """
    merged: list[Neurons] = []
    for part in parts:
        for i, other in enumerate(merged):
            one = _one(state, other, part, how, outer)
            if one is not None:
                merged[i] = one
                break
        else:
            merged.append(part)
    return merged


@dataclass(frozen=True)
class _Pairs:
    """The different pairs of nodes of two operands, :data:`NONE` where one has none.

    Attributes:
        pairs: ``(pairs, 2)``.
        inverse: for every entry the number of its pair.
    """

    pairs: Tensor
    inverse: Tensor

    @property
    def is_nothing(self) -> Tensor:
        """For every pair whether both have none."""
        return (self.pairs < 0).all(1)

    def operands(self) -> tuple[Tensor, Tensor]:
        """Both sides of all pairs of which one has a node."""
        left, right = self.pairs[~self.is_nothing].unbind(1)
        return left, right

    def entries(self, ids: Tensor) -> Tensor:
        """For every entry what was made of its pair."""
        number = torch.cumsum(~self.is_nothing, 0) - 1
        place = torch.where(self.is_nothing, NONE, number)
        return torch.cat([ids, torch.tensor([NONE])])[place][self.inverse]


def _one(state: State, left: Neurons, right: Neurons, how: str, outer: bool) -> Neurons | None:
    """The neurons made of two sets; ``None`` if they vary independently of each other."""
    pool = state.pool
    a, b = (pool.find(x) for x in compact(left.ids, right.ids))
    if left.hidden == right.hidden and torch.equal(a, b):
        return left
    if state.reductions and normalises(state, b, a):
        return left
    if state.reductions and normalises(state, a, b):
        return right
    # a = 1 1 2 2, b = 5 5 6 6: the pairs are (1, 5) and (2, 6), and two neurons are made of these
    pairs = _Pairs(*unique_pairs(a, b))
    is_raw = [pool.is_raw(side) for side in pairs.pairs.unbind(1)]
    if is_raw[0] != is_raw[1] and _unite_raw(state, pairs.pairs, is_raw.index(True)):
        return _one(state, left, right, how, outer)
    operands = pairs.operands()
    widest = max(len(torch.unique(side[side >= 0])) for side in pairs.pairs.unbind(1))
    if len(operands[0]) > widest and not outer and _are_all_pairs(*operands):
        return None
    hidden = {**left.hidden, **right.hidden}
    ids = None if hidden else _made_before(state, how, operands)
    if ids is None:
        ids, hidden = _make(
            state, how, operands, (left.hidden, right.hidden), hidden, raw=all(is_raw)
        )
    return Neurons(pairs.entries(ids).view(a.shape).expand(left.ids.shape), hidden)


def _made_before(state: State, how: str, operands: tuple[Tensor, Tensor]) -> Tensor | None:
    """The neurons that were made of the same operands, in this step or in one that recurs."""
    ids = state.made.known(how, operands)
    return recurring(state, how, operands) if ids is None else ids


def _unite_raw(state: State, pairs: Tensor, raw: int) -> bool:
    """Entries of an input that meet one and the same neuron are one; whether any were united."""
    before = state.pool.unions
    unite_by(state, pairs[:, raw], pairs[:, 1 - raw])
    return state.pool.unions > before


def _are_all_pairs(left: Tensor, right: Tensor) -> bool:
    """Whether the neurons of both sides fall into classes, and within a class all pairs are there.

    ``1a 1b 2a 2b 3c`` has the classes ``{1, 2} x {a, b}`` and ``{3} x {c}``. All of the left ones
    that meet a right one must meet the same right ones, which is seen in random sums of these.
    """
    left = torch.unique(left, return_inverse=True)[1]
    right = torch.unique(right, return_inverse=True)[1]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (len(left),), generator=generator)
    sums = torch.zeros_like(left).index_add_(0, left, weights[right])
    partners = sums[left]  # of the left one of each pair
    of_some = torch.zeros_like(left).index_copy_(0, right, partners)[right]
    return torch.equal(partners, of_some)


def _make(
    state: State,
    how: str,
    operands: tuple[Tensor, Tensor],
    own: tuple[HiddenAxes, HiddenAxes],
    hidden: HiddenAxes,
    raw: bool,
) -> tuple[Tensor, dict[HiddenAxis, Digit]]:
    """New neurons of pairs of others, and the edges from those."""
    pool = state.pool
    type, edge = _KINDS[how]
    count, times = len(operands[0]), 1
    digits: dict[HiddenAxis, Digit] = {}
    for axis, (size, _) in hidden.items():
        digits[axis] = Digit(size, count * times)
        times *= size
    nodes = [torch.unique(o[o >= 0]) for o in operands]
    main = operands[0] if len(nodes[0]) >= len(nodes[1]) else operands[1]
    groups = pool.groups_of(torch.where(main >= 0, main, operands[0]))
    layer = max(map(pool.layer, nodes)) + 1
    word = "sum" if how == "add" else "product"
    site = pool.new(
        f"{word} {len(pool.sites)}", count * times, type, layer, groups * times, raw=raw
    )
    ids = site.ids[:count]
    for side, source in enumerate(operands):
        destination = ids
        for axis, (size, step) in digits.items():
            destination = stepping(destination, size, step)
            source = stepping(source, size, own[side][axis].step if axis in own[side] else 0)
        state.uses.connect(edge, source, destination, side)
    if not hidden:
        state.made.add(Making(how, operands, ids, state.uses.module))
    return ids, digits
