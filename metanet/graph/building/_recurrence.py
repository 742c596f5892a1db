"""What recurs: sums and products that turn out to be one neuron at several times."""

import torch
from torch import Tensor

from ._ids import are_one_to_one
from ._state import State


def recurring(state: State, how: str, operands: tuple[Tensor, Tensor]) -> Tensor | None:
    """A module takes what came of a sum or product into the same sum or product: that is one neuron
    at two times.

    ``state = decay * state + new`` for every token, for instance. What the loop through weights
    closes is seen there::

        decay * state0 = product1        product1 + new1 = state1
        decay * state1 = product2        made of decay again, and product1 feeds state1:
                                         state0 and state1 are one, and so are the products
    """
    for side in (0, 1):
        for then in state.made.with_operand(how, operands[side], side, state.uses.module):
            before, now = state.pool.find(then.operands[1 - side]), operands[1 - side]
            if len(then.ids) != len(now) or not are_one_to_one(before, now):
                continue
            if not _are_alike(state, before, now):
                continue
            if state.uses.feeding.feeds(then.ids, now, weights=False):
                state.pool.unite(before, now)
                return state.pool.find(then.ids)
    return None


def close(state: State) -> None:
    """Where sums or products turned out to be one neuron, so are their operands, if those are
    alike, too."""
    pool = state.pool
    before = -1
    while before != pool.unions:
        before = pool.unions
        _close_raw(state)
        for one, other in list(state.made.alike()):
            same = zip(one.operands, other.operands, strict=True)
            if all(torch.equal(pool.find(o), pool.find(p)) for o, p in same):
                pool.unite(one.ids, other.ids)
        for one, other in list(state.made.twice()):
            if not pool.is_raw(other.ids) and torch.equal(pool.find(one.ids), pool.find(other.ids)):
                _unite_operands(state, one.operands, other.operands)


def _close_raw(state: State) -> None:
    """What was made of entries of an input: those that went into one neuron are one."""
    pool = state.pool
    for making in list(state.made.makings):
        if pool.site_of(int(making.ids[0])).raw and pool.is_raw(making.ids):
            for operand in making.operands:
                unite_by(state, pool.find(operand), pool.find(making.ids))


def _unite_operands(state: State, ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> None:
    """The operands of one result at two times, which may have changed places."""
    left = [state.pool.find(o) for o in others]
    right = [state.pool.find(o) for o in ones]
    if any(torch.equal(x, y) for x, y in zip(left, right[::-1], strict=True)):
        right = right[::-1]
    for x, y in zip(left, right, strict=True):
        if x.shape == y.shape and not torch.equal(x, y) and _are_alike(state, x, y):
            state.pool.unite(x, y)


def unite_by(state: State, raw: Tensor, partner: Tensor) -> None:
    """Entries of an input that stand beside one and the same partner are one.

    ``raw`` 1 2 3 beside ``partner`` 7 7 8: 1 and 2 are one.
    """
    order = partner.argsort(stable=True)
    raw, partner = raw[order], partner[order]
    same = (partner[1:] == partner[:-1]) & (partner[1:] >= 0)
    state.pool.unite(raw[:-1][same], raw[1:][same])


def _are_alike(state: State, left: Tensor, right: Tensor) -> bool:
    """Whether two sets of neurons were made in the same way and share no neuron."""
    kinds = [[site.type for site in state.pool.sites_of(x[x >= 0])] for x in (left, right)]
    return kinds[0] == kinds[1] and bool(kinds[0]) and not torch.isin(left, right).any()
