"""Tables: rows looked up by the network's input, by position, or by a choice the network makes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...symmetry import Choose, Concatenate, LookUp, Pad, Rearrange, Regroup
from ..template._schema import EdgeType, NodeType
from ._contents import Content, Digit, Entries, Hidden, Neurons, new_hidden_axis
from ._state import Operation, State


def note_choice(state: State, operation: Operation) -> None:
    """Integers that come from the network's own numbers name items, for instance experts.

    They keep their name when they are rearranged::

        scores -- topk --> chosen (tokens, 2) -- view --> (tokens * 2)      both name one choice
    """
    op = operation.op
    if operation.word(Choose) and any(n in state.contents for n in op.inputs()):
        for number in op.outputs:
            if number is not None and state.holds_integers(number):
                state.choices[number] = number
    elif any(map(operation.word, (Rearrange, Regroup, Pad, Concatenate))):
        choices = [state.choices[n] for n in op.inputs() if n in state.choices]
        if choices:
            state.choices.update((n, choices[0]) for n in op.outputs if n is not None)


@dataclass(frozen=True)
class _Reason:
    """Why rows of a table are hidden, and the value that says which ones they are."""

    why: Hidden
    of: int


def look_up(state: State, operation: Operation) -> bool:
    """Rows of a parameter by number: which row it is becomes a hidden axis. False if this is no
    such look-up."""
    flow = operation.word(LookUp)
    if flow is None or flow.table.value not in state.contents:
        return False
    table, out = state.content(flow.table.value), operation.op.outputs[0]
    if table.neurons or not all(state.holds_integers(i.value) for i in flow.integers):
        return False
    values = [state.constant(i.value) for i in flow.integers]
    if len(values) == 1 and values[0] is not None:
        rows = table.entries[0].ids.shape[flow.axes[0]]
        if _is_every_row_once(values[0], rows):
            return False  # in another order: no row is hidden
    by_choice = any(i.value in state.choices for i in flow.integers)
    by_input = not by_choice and any(value is None for value in values)
    alone = by_input and not flow.embedding and len(values) == 1
    reasons = [_reason(state, i.value, alone) for i in flow.integers]
    if not all(e.strided for e in table.entries):
        return False
    shape = () if out is None else state.shape(out)
    entries = [_looked_up(e, flow, reasons, shape) for e in table.entries]
    if by_input and flow.embedding:
        state.put(out, Content((_embed(state, operation.out, entries),)))
    else:
        state.put(out, Content(entries=tuple(entries)))
    return True


def _reason(state: State, integers: int, by_input: bool) -> _Reason:
    """Why an axis is hidden that these integers look up.

    Tensors that are looked up by the same integers of the network's input are of the same items,
    just as those that are looked up by one choice.
    """
    if integers in state.choices:
        return _Reason(Hidden.CHOSEN, state.choices[integers])
    return _Reason(Hidden.CHOSEN if by_input else Hidden.LOOKED_UP, integers)


def _looked_up(
    e: Entries, flow: LookUp, reasons: Sequence[_Reason], shape: Sequence[int]
) -> Entries:
    """The entries of any row of a table: those of the first, and the axes along which the others
    follow.

    ``table (4, 8)`` by ``integers (3,)`` is ``(3, 8)``: the entries of row 0 at all three places, and
    a hidden axis of 4 rows with step 8.
    """
    hidden, ids = dict(e.hidden), e.ids
    for axis, reason in zip(flow.axes, reasons, strict=True):
        digit = Digit(ids.shape[axis], ids.stride(axis))
        hidden[new_hidden_axis(reason.why, reason.of, hidden)] = digit
    for axis in sorted(flow.axes, reverse=True):
        ids = ids.select(axis, 0)
    for _ in range(len(shape) - ids.ndim):
        ids = ids.unsqueeze(flow.lead)
    return replace(e, ids=ids.expand(tuple(shape)), hidden=hidden)


def _is_every_row_once(integers: Tensor, rows: int) -> bool:
    """Whether integers name every row of a table, each once."""
    if integers.ndim != 1 or len(integers) != rows:
        return False
    return len(torch.unique(integers % rows)) == rows


def _embed(state: State, out: int, entries: list[Entries]) -> Neurons:
    """Neurons along the last axis, fed by one input node per row."""
    shape = state.shape(out)
    name = state.uses.names[entries[0].parameter]
    site = state.new_site(name, (shape[-1],), NodeType.HIDDEN, 1, out, [len(shape) - 1])
    ids = site.ids.expand(shape)
    for e in entries:
        state.uses.attach(e, ids, NodeType.INPUT, EdgeType.EMBEDDING)
    return Neurons(ids)
