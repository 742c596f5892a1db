"""Values put together entry by entry: sums, products, other functions; gates."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch

from ...symmetry import Gate, Join
from ._contents import Content, Effect, Entries, Neurons
from ._merge import merge
from ._state import Operation, State

_EFFECTS = {"add": Effect.BIAS, "multiply": Effect.SCALE, "other": Effect.OTHER}


def join(state: State, operation: Operation) -> bool:
    """An entry-wise function of several values.

    Neurons meet neurons in new ones, parameters act on them, and parameters among themselves stay
    the entries that they are::

        x + y                new neurons, an edge from each summand
        x + bias             the neurons of x, and the bias at a source node of its own
        weight * length      the entries of both, for whatever reads the product
    """
    flow = operation.word(Join)
    if flow is None:
        return False
    out, shape = operation.out, state.shape(operation.out)
    contents = {o.value: state.content(o.value) for o in flow.operands}
    neurons: list[Neurons] = []
    for content in contents.values():
        parts = [Neurons(n.ids.expand(shape), n.hidden) for n in content.neurons]
        neurons = merge(state, [*neurons, *parts], flow.how)
    parameters = [e for content in contents.values() for e in content.entries]
    effect = _EFFECTS[flow.how]
    if not neurons:
        parameters = _acting(parameters, effect)
    entries = _without_repeats([replace(e, ids=e.ids.expand(shape)) for e in parameters])
    if not neurons:
        state.put(out, Content(entries=tuple(entries)))
        return True
    result = Content(tuple(neurons))
    for e in entries:
        state.attach(e, result, effect)
    state.put(out, result)
    return True


def _acting(parameters: Sequence[Entries], effect: Effect) -> list[Entries]:
    """Parameters among themselves: the smaller act on the largest.

    ``weight (8, 4) * scale (8, 1)`` is to be read as a weight, and a scale of it.
    """
    counts = list(map(_count, parameters))
    largest = max(counts, default=0)
    return [
        replace(e, effect=effect) if count < largest else e
        for e, count in zip(parameters, counts, strict=True)
    ]


def _without_repeats(parameters: Sequence[Entries]) -> list[Entries]:
    """Entries of which none says only what another one says."""
    entries: list[Entries] = []
    for new in parameters:
        if any(_says_nothing_new(new, old) for old in entries):
            continue
        entries = [old for old in entries if not _says_nothing_new(old, new)]
        entries.append(new)
    return entries


def gate(state: State, operation: Operation) -> bool:
    """One half of a value times the other."""
    flow = operation.word(Gate)
    if flow is None:
        return False
    neurons = state.content(flow.operand.value).neurons
    halves = [(n.hidden, n.ids.chunk(2, flow.axis)) for n in neurons]
    parts = [Neurons(ids[i], hidden) for i in (0, 1) for hidden, ids in halves]
    state.put(operation.out, Content(tuple(merge(state, parts, "multiply"))))
    return True


def _count(entries: Entries) -> int:
    """How many entries a value shows."""
    ids = entries.ids
    return prod(n for n, s in zip(ids.shape, ids.stride(), strict=True) if s)


def _says_nothing_new(one: Entries, other: Entries) -> bool:
    """Whether it is the same entries, or a sum over all of them (the length of a weight beside the
    weight)."""
    if (one.parameter, one.strided) != (other.parameter, other.strided):
        return False
    if one.hidden and not other.hidden:
        ids = one.real().ids
        return bool((other.real().ids == ids.amax()).any())
    if one.strided:
        same_steps = one.ids.stride() == other.ids.stride()
        return same_steps and one.ids.storage_offset() == other.ids.storage_offset()
    return torch.equal(one.ids, other.ids)
