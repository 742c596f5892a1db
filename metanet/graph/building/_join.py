"""Values put together entry by entry: sums, products, other functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...symmetry import Join
from ...tracing import Op
from ._flows import Entries, Flow, Neurons, compact, distinct, unique_pairs
from ._made import Making
from ._reduce import normalises
from ..template._schema import EdgeType, NodeType
from ._uses import one_to_one

if TYPE_CHECKING:
    from ._walk import Walk

_KINDS = {
    "add": (NodeType.SUM, EdgeType.RESIDUAL),
    "multiply": (NodeType.PRODUCT, EdgeType.PRODUCT),
    "other": (NodeType.PRODUCT, EdgeType.JOINT),
}
_ROLES = {"add": "bias", "multiply": "scale", "other": "other"}


def join(walk: Walk, out: int, flow: Join) -> Flow:
    """An entry-wise function of several values."""
    shape = walk.trace.values[out].shape
    operands = {o.value: walk.flows[o.value] for o in flow.operands if o.value in walk.flows}
    neurons: list[Neurons] = []
    for below in operands.values():
        parts = [Neurons(n.ids.expand(shape), n.hidden) for n in below.neurons]
        neurons = merge(walk, [*neurons, *parts], flow.how, out)
    entries: list[Entries] = []
    largest = max((e for b in operands.values() for e in b.entries), key=_size, default=None)
    for below in operands.values():
        for e in below.entries:
            role = _ROLES[flow.how] if not neurons and _size(e) < _size(largest) else e.role
            new = replace(e, ids=e.ids.expand(shape), role=role)
            if not any(_says_nothing_new(new, old) for old in entries):
                entries = [old for old in entries if not _says_nothing_new(old, new)] + [new]
    if not neurons:
        return Flow(entries=tuple(entries))
    result = Flow(tuple(neurons))
    for e in entries:
        walk.vector(e, result, _ROLES[flow.how])
    return result


def gate(walk: Walk, op: Op) -> Flow:
    """One half of a value times the other."""
    below, dim = op.args[0].value, op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", -1)
    halves = [n.ids.chunk(2, dim) for n in walk.flows[below].neurons]
    parts = [
        Neurons(h[i], n.hidden)
        for i in (0, 1)
        for n, h in zip(walk.flows[below].neurons, halves, strict=True)
    ]
    return Flow(tuple(merge(walk, parts, "multiply", op.outputs[0])))


def _size(entries: Entries) -> int:
    """How many entries a value shows."""
    return prod(n for n, s in zip(entries.ids.shape, entries.ids.stride(), strict=True) if s)


def _says_nothing_new(one: Entries, other: Entries) -> bool:
    """Whether it is the same entries, or a sum over all of them (the length of a weight beside the
    weight)."""
    if one.parameter != other.parameter or one.strided != other.strided:
        return False
    if one.hidden and not other.hidden:
        ids = one.real().ids
        return bool((other.real().ids == ids.amax()).any())
    if one.strided:
        return (
            one.ids.stride() == other.ids.stride()
            and one.ids.storage_offset() == other.ids.storage_offset()
        )
    return torch.equal(one.ids, other.ids)


def merge(
    walk: Walk, parts: Sequence[Neurons], how: str, out: int, outer: bool = False
) -> list[Neurons]:
    """One set of neurons for all parts that vary together.

    Parts that vary independently of each other stay apart, unless ``outer``: then there is a neuron
    for every pair.
    """
    done: list[Neurons] = []
    for part in parts:
        for i, other in enumerate(done):
            one = _one(walk, other, part, how, out, outer)
            if one is not None:
                done[i] = one
                break
        else:
            done.append(part)
    return done


def _one(
    walk: Walk, left: Neurons, right: Neurons, how: str, out: int, outer: bool
) -> Neurons | None:
    pool = walk.pool
    a, b = (pool.find(x) for x in compact(left.ids, right.ids))
    if left.hidden == right.hidden and torch.equal(a, b):
        return left
    for one, other, stays in ((b, a, left), (a, b, right)):
        if walk.reductions and normalises(walk, one, other):
            return stays
    pairs, inverse = unique_pairs(a, b)
    raw = [is_raw(walk, pairs[:, side]) for side in (0, 1)]
    if raw[0] != raw[1]:  # entries of an input that meet one and the same neuron are one neuron
        before = pool.unions
        _unite_by(walk, pairs[:, raw.index(True)], pairs[:, raw.index(False)])
        if pool.unions > before:
            return _one(walk, left, right, how, out, outer)
    nothing = (pairs < 0).all(1)
    count = int((~nothing).sum())
    sizes = [len(torch.unique(pairs[pairs[:, side] >= 0, side])) for side in (0, 1)]
    if count > max(sizes) and not outer and _everything_with_everything(pairs[~nothing]):
        return None
    place = torch.where(nothing, -1, torch.cumsum(~nothing, 0) - 1)
    operands = tuple(pairs[~nothing].T)
    hidden = {**left.hidden, **right.hidden}
    ids = None
    if not hidden and (ids := walk.made.known(how, operands)) is None:
        ids = _recurs(walk, how, operands)
    if ids is None:
        ids, hidden = _make(walk, how, operands, (left.hidden, right.hidden), hidden, out, all(raw))
    found = torch.cat([ids, torch.tensor([-1])])[place][inverse].view(a.shape)
    return Neurons(found.expand(left.ids.shape), hidden)


def _everything_with_everything(pairs: Tensor) -> bool:
    """Whether the neurons of both sides fall into classes, and within a class all pairs are
    there."""
    left, right = (torch.unique(side, return_inverse=True)[1] for side in pairs.T)
    weights = torch.randint(
        -(2**62), 2**62, (len(pairs),), generator=torch.Generator().manual_seed(0)
    )
    partners = torch.zeros_like(left).index_add_(0, left, weights[right])[
        left
    ]  # of the left one of each pair
    of_some = torch.zeros_like(left).index_copy_(0, right, partners)[right]
    return torch.equal(partners, of_some)


def _make(
    walk: Walk, how: str, operands: tuple[Tensor, Tensor], own: tuple[Mapping, Mapping], hidden: Mapping, out: int,
    raw: bool,
) -> tuple[Tensor, dict[int, tuple[int, int]]]:  # fmt: skip
    pool, (type, edge) = walk.pool, _KINDS[how]
    count = len(operands[0])
    times = 1
    steps: dict[int, tuple[int, int]] = {}
    for key, (size, _) in hidden.items():
        steps[key] = (size, count * times)
        times *= size
    known = [torch.unique(o[o >= 0]) for o in operands]
    main = operands[0] if len(known[0]) >= len(known[1]) else operands[1]
    groups = [
        pool.groups[i] if i >= 0 else "" for i in torch.where(main >= 0, main, operands[0]).tolist()
    ]
    layer = max(pool.layer(o) for o in known) + 1
    word = "sum" if how == "add" else "product"
    site = pool.new(
        f"{word} {len(pool.sites)}", count * times, type, layer, groups * times, raw=raw
    )
    ids = site.ids[:count]
    for side, o in enumerate(operands):
        source, destination = o, ids
        for key, (size, step) in steps.items():
            more = torch.arange(size).view(-1, *(1,) * source.ndim)
            destination = destination + more * step
            source = torch.where(source < 0, -1, source + more * own[side].get(key, (0, 0))[1])
        walk.uses.connect(edge, source, destination, side)
    if not hidden:
        walk.made.add(Making(how, operands, ids, walk.uses.module))
    return ids, steps


def _recurs(walk: Walk, how: str, operands: tuple[Tensor, Tensor]) -> Tensor | None:
    """A module takes what came of a sum or product into the same sum or product: that is one neuron
    at two times.

    ``state = decay * state + new`` for every token, for instance. What the loop through weights
    closes is seen there.
    """
    for side in (0, 1):
        for then in walk.made.with_operand(how, operands[side], side, walk.uses.module):
            before, now = walk.pool.find(then.operands[1 - side]), operands[1 - side]
            if (
                len(then.ids) != len(now)
                or not one_to_one(before, now)
                or not _alike(walk, before, now)
            ):
                continue
            if walk.uses.feeds(then.ids, now, weights=False):
                walk.pool.unite(before, now)
                return walk.pool.find(then.ids)
    return None


def is_raw(walk: Walk, ids: Tensor) -> bool:
    numbers = torch.unique(walk.pool.site_number(distinct(ids))).tolist() if ids.numel() else []
    return bool(numbers) and all(walk.pool.sites[n].raw for n in numbers)


def _unite_by(walk: Walk, raw: Tensor, partner: Tensor) -> None:
    order = partner.argsort(stable=True)
    raw, partner = raw[order], partner[order]
    same = (partner[1:] == partner[:-1]) & (partner[1:] >= 0)
    walk.pool.unite(raw[:-1][same], raw[1:][same])


def close(walk: Walk) -> None:
    """Where sums or products turned out to be one neuron, so are their operands, if those are
    alike, too."""
    pool = walk.pool
    before = -1
    while before != pool.unions:
        before = pool.unions
        for made in [m for m in walk.made.found if pool.sites[int(pool.site_number(m.ids[0]))].raw]:
            if is_raw(walk, made.ids):
                for o in made.operands:
                    _unite_by(walk, pool.find(o), pool.find(made.ids))
        for one, other in list(walk.made.alike()):
            if all(
                torch.equal(pool.find(o), pool.find(p))
                for o, p in zip(one.operands, other.operands, strict=True)
            ):
                pool.unite(one.ids, other.ids)
        for one, other in list(walk.made.twice()):
            if is_raw(walk, other.ids) or not torch.equal(pool.find(one.ids), pool.find(other.ids)):
                continue
            left, right = ([pool.find(o) for o in m.operands] for m in (other, one))
            if any(torch.equal(x, y) for x, y in zip(left, right[::-1], strict=True)):
                right = right[::-1]
            for x, y in zip(left, right, strict=True):
                if x.shape == y.shape and not torch.equal(x, y) and _alike(walk, x, y):
                    pool.unite(x, y)


def _alike(walk: Walk, left: Tensor, right: Tensor) -> bool:
    """Whether two sets of neurons were made in the same way and share no neuron."""
    sites = [
        [walk.pool.sites[n] for n in torch.unique(walk.pool.site_number(x[x >= 0])).tolist()]
        for x in (left, right)
    ]
    kinds = [[s.type for s in found] for found in sites]
    return kinds[0] == kinds[1] and bool(kinds[0]) and not torch.isin(left, right).any()
