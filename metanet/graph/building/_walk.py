"""From a solved recording to neurons and edges: one pass over the operations.

Every value has a :class:`~metanet.graph.building._contents.Content`. Rearrangements are run on its
integers; contractions with parameters, sums and products make new neurons; everything else stays on
the neurons it reads. This file is the loop, handlers deal with the operations by what these say of
the flow of neurons (:mod:`metanet.symmetry`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import torch

from ...symmetry import Attach, Derivation
from ...tracing import Op, Trace
from ..template._schema import ACTIVATIONS, NodeType
from ._beside import concatenate, write
from ._contents import Content, Effect, Neurons, whole
from ._contract import contract
from ._follow import follow, follow_alike
from ._ids import distinct, place
from ._join import gate, join
from ._look_up import look_up, note_choice
from ._rearrange import rearrange
from ._recurrence import close
from ._reduce import connect_reductions
from ._state import Operation, State

Handler = Callable[[State, Operation], bool]

HANDLERS: Sequence[Handler] = (
    contract,
    look_up,
    concatenate,
    write,
    gate,
    rearrange,
    join,
    follow,
    follow_alike,
)
"""Asked in turn until one has dealt with the operation; the last deals with all."""


def walk(trace: Trace, solved: Derivation, known: State | None = None) -> State:
    """Walk through a recording.

    Args:
        known: of an earlier walk: entries of inputs that it made one are so from the start.
    """
    state = State(trace, solved)
    for number in trace.inputs:
        _add_input(state, number)
    if known is not None:
        ids = torch.arange(len(state.pool))
        state.pool.unite(ids, torch.from_numpy(known.pool.roots()[: len(ids)]))
    for number, shape in state.uses.shapes.items():
        if prod(shape):
            state.contents[number] = Content(entries=(whole(number, shape),))
    forgotten = _forgotten_after(trace.ops, trace.outputs)
    # linear -> relu -> linear, what each result shows:
    #     x (batch, 3)    nodes of the input: 0 1 2, alike along the batch
    #     linear (b, 8)   weight and neurons are contracted: new nodes 3 ... 10; the bias is attached
    #     relu (b, 8)     follows: 3 ... 10 again, whose activation is noted
    unions = state.pool.unions
    for i, (op, semantics) in enumerate(zip(trace.ops, solved.semantics, strict=True)):
        if semantics is not None:
            _step(state, Operation(op, semantics))
        if state.pool.unions > unions:  # a recurrence: what it is made of recurs, too
            close(state)
            unions = state.pool.unions
        for number in forgotten.get(i, ()):
            state.contents.pop(number, None)
    close(state)
    connect_reductions(state)
    return state


def _add_input(state: State, number: int) -> None:
    """A node for every entry of an input of numbers with a point; which of them are one neuron will
    show."""
    value = state.trace.values[number]
    count = prod(value.shape)
    if "int" in value.dtype or "bool" in value.dtype or not count:
        return
    name = f"input {state.trace.inputs.index(number)}"
    site = state.pool.new(name, count, NodeType.INPUT, 0, raw=True)
    state.contents[number] = Content((Neurons(site.ids.view(value.shape)),))
    state.kept[number] = state.contents[number]


def _forgotten_after(ops: Sequence[Op], outputs: Sequence[int]) -> dict[int, list[int]]:
    """For each operation the values that nobody reads any more after it."""
    # a = f(x); b = g(a); c = h(a): x is forgotten after operation 0, a after 2
    last: dict[int, int] = {}
    for i, op in enumerate(ops):
        results = [number for number in op.outputs if number is not None]
        last.update(dict.fromkeys((*op.inputs(), *results), i))
    ending: dict[int, list[int]] = {}
    for number, i in last.items():
        if number not in outputs:
            ending.setdefault(i, []).append(number)
    return ending


def _step(state: State, operation: Operation) -> None:
    """Deal with one operation."""
    op = operation.op
    state.uses.module = op.module
    note_choice(state, operation)
    if state.contents.keys().isdisjoint(op.inputs()):
        return
    outputs = [number for number in op.outputs if number is not None]
    if all(0 in state.shape(number) for number in outputs):
        return
    next(handler for handler in HANDLERS if handler(state, operation))
    for flow in operation.said(Attach):
        _attach(state, op.outputs[0], flow)
    _note_activation(state, operation)


def _attach(state: State, out: int | None, flow: Attach) -> None:
    """A parameter acts on the result of an operation."""
    content = state.contents.get(out) if out is not None else None
    if out is None or content is None or flow.operand.value not in state.contents:
        return
    shape, effect = state.shape(out), Effect(flow.role)
    placed = [
        replace(e, ids=place(e.ids, flow.axes, shape), effect=effect)
        for e in state.content(flow.operand.value).entries
    ]
    if content.neurons:
        for entries in placed:
            state.attach(entries, content, effect)
    else:  # the norm of a parameter, which may turn out to be a weight or to flow like an activation
        state.contents[out] = Content(entries=(*content.entries, *placed))


def _note_activation(state: State, operation: Operation) -> None:
    """The first activation that follows a site is a feature of its neurons, and what they show."""
    out, name = operation.op.outputs[0], operation.semantics.function
    if out is None or out not in state.contents or name not in ACTIVATIONS:
        return
    content = state.contents[out]
    if len(content.neurons) != 1 or content.neurons[0].hidden:
        return
    pool, number = state.pool, ACTIVATIONS.index(name)
    nodes = pool.find(distinct(content.neurons[0].ids))
    for node, site in zip(nodes.tolist(), pool.site_number(nodes).tolist(), strict=True):
        if node not in pool.activation and not pool.sites[site].raw:
            pool.activation[node] = number
            pool.value[node] = out
    state.kept[out] = content
