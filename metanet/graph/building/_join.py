"""Values put together entry by entry: sums, products, other functions; gates."""

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
    everything = [e for content in contents.values() for e in content.entries]
    largest = max(map(_count, everything), default=0)
    entries: list[Entries] = []
    for e in everything:
        acts = not neurons and _count(e) < largest
        effect = _EFFECTS[flow.how] if acts else e.effect
        new = replace(e, ids=e.ids.expand(shape), effect=effect)
        if not any(_says_nothing_new(new, old) for old in entries):
            entries = [old for old in entries if not _says_nothing_new(old, new)] + [new]
    if not neurons:
        state.put(out, Content(entries=tuple(entries)))
        return True
    result = Content(tuple(neurons))
    for e in entries:
        state.attach(e, result, _EFFECTS[flow.how])
    state.put(out, result)
    return True


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
    if one.parameter != other.parameter or one.strided != other.strided:
        return False
    if one.hidden and not other.hidden:
        ids = one.real().ids
        return bool((other.real().ids == ids.amax()).any())
    if one.strided:
        same_steps = one.ids.stride() == other.ids.stride()
        return same_steps and one.ids.storage_offset() == other.ids.storage_offset()
    return torch.equal(one.ids, other.ids)
