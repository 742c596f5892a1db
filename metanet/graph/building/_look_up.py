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
    inputs = operation.op.inputs()
    outputs = [number for number in operation.op.outputs if number is not None]
    if operation.word(Choose) and not state.contents.keys().isdisjoint(inputs):
        integers = list(filter(state.holds_integers, outputs))
        state.choices.update(zip(integers, integers, strict=True))
        return
    if any(map(operation.word, (Rearrange, Regroup, Pad, Concatenate))):
        choices = [state.choices[number] for number in inputs if number in state.choices]
        if choices:
            state.choices.update(dict.fromkeys(outputs, choices[0]))


@dataclass(frozen=True)
class _Reason:
    """Why rows of a table are hidden, and the value that says which ones they are."""

    why: Hidden
    of: int


def look_up(state: State, operation: Operation) -> bool:
    """Rows of a parameter by number: which row it is becomes a hidden axis. False if this is no
    such look-up."""
    flow = operation.word(LookUp)
    if flow is None or not _is_table(state, flow):
        return False
    # table[:, [2, 0, 1]] of 3 columns only reorders them, table[:, [2, 0]] hides which one it is
    if _takes_every_row_once(state, flow):
        return False
    numbers = [integers.value for integers in flow.integers]
    by_input = _come_from_the_input(state, numbers)
    alone = by_input and not flow.embedding and len(numbers) == 1
    reasons = [_reason(state, number, alone) for number in numbers]
    out = operation.op.outputs[0]
    shape = () if out is None else state.shape(out)
    table = state.content(flow.table.value)
    entries = [_looked_up(e, flow, reasons, shape) for e in table.entries]
    if by_input and flow.embedding:
        state.put(out, Content((_embed(state, operation.out, entries),)))
    else:
        state.put(out, Content(entries=tuple(entries)))
    return True


def _is_table(state: State, flow: LookUp) -> bool:
    """Whether a parameter is looked up, by whole numbers; strides tell where its rows are."""
    if flow.table.value not in state.contents:
        return False
    table = state.content(flow.table.value)
    by_integers = all(state.holds_integers(integers.value) for integers in flow.integers)
    return by_integers and not table.neurons and all(e.strided for e in table.entries)


def _takes_every_row_once(state: State, flow: LookUp) -> bool:
    """Whether a look-up only reorders the rows of a table."""
    if len(flow.integers) != 1:
        return False
    integers = state.constant(flow.integers[0].value)
    first = state.content(flow.table.value).entries[0]
    return integers is not None and _is_every_row_once(integers, first.ids.shape[flow.axes[0]])


def _come_from_the_input(state: State, numbers: Sequence[int]) -> bool:
    """Whether some integers are the caller's, and none is a choice of the network."""
    if not state.choices.keys().isdisjoint(numbers):
        return False
    return any(state.constant(number) is None for number in numbers)


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
