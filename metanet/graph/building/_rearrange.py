"""Operations that only move entries about: they are run on the integers themselves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...symmetry import Pad, Rearrange, Regroup
from ...tracing import Op, Ref, references
from ..template._blocks import strided_integers
from ._contents import Content, Entries, Neurons
from ._ids import NONE, varies
from ._state import Operation, State

_Run = Callable[[Tensor], list[Tensor] | None]


def rearrange(state: State, operation: Operation) -> bool:
    """The results show what the operation makes of the operand's integers.

    ``x.t()`` of the neurons ``[[1, 2]]`` shows ``[[1], [2]]``. It must be given nothing else that is
    followed, nor anything whose values are not known.
    """
    op = operation.op
    word = operation.word(Rearrange) or operation.word(Regroup) or operation.word(Pad)
    if word is None:
        return False
    first, *others = op.inputs()
    if first not in state.contents or any(number in state.contents for number in others):
        return False
    run = _runner(state, op, word)
    results: list[list[Neurons | Entries]] = [[] for _ in op.outputs]
    content = state.content(first)
    everything: list[Neurons | Entries] = [*content.neurons, *content.entries]
    for part in everything:
        moved = run(part.ids)
        if moved is None:
            return False
        for parts, ids in zip(results, moved, strict=False):
            if ids.is_meta or bool((ids >= 0).any()):
                parts.append(replace(part, ids=ids))
    for number, parts in zip(op.outputs, results, strict=True):
        neurons = tuple(part for part in parts if isinstance(part, Neurons))
        entries = tuple(part for part in parts if isinstance(part, Entries))
        state.put(number, Content(neurons, entries))
    return True


def _runner(state: State, op: Op, word: Rearrange | Regroup | Pad) -> _Run:
    """What is to be done to the integers."""
    if isinstance(word, Pad):
        return lambda ids: [_padded(_written(ids), word.around)]
    if isinstance(word, Regroup):
        number = op.outputs[0]
        shape = () if number is None else state.shape(number)
        return lambda ids: [_regrouped(ids, shape)]
    if word.how == "same":
        return lambda ids: [ids] * max(1, len(op.outputs))
    return lambda ids: _moved(op, ids, word.how, state.constant)


def _written(ids: Tensor) -> Tensor:
    """Integers that strides told, written out."""
    return (
        strided_integers(ids.shape, ids.stride(), int(ids.storage_offset())) if ids.is_meta else ids
    )


def _regrouped(ids: Tensor, shape: Sequence[int]) -> Tensor:
    """The same integers in another shape; strided ones stay so where strides can tell them."""
    if ids.is_meta:
        try:
            return ids.view(shape)
        except RuntimeError:  # no view
            pass
    return _written(ids).reshape(shape)


def _padded(ids: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    """Positions that are padded show the same neurons; neurons that are padded are none."""
    for axis, (before, after) in reversed(list(enumerate(around))):
        if (before, after) == (0, 0):
            continue
        if varies(ids, axis):
            behind = [0, 0] * (ids.ndim - 1 - axis)
            ids = torch.constant_pad_nd(ids, [*behind, before, after], NONE)
        else:
            sizes = list(ids.shape)
            sizes[axis] += before + after
            ids = ids.narrow(axis, 0, 1).expand(sizes)
    return ids


def _moved(
    op: Op, ids: Tensor, how: str, constant: Callable[[int], Tensor | None]
) -> list[Tensor] | None:
    """What the operation does to integers in place of its first tensor; ``None`` if it needs values
    not known."""
    first, *others = references((op.args, op.kwargs))
    values = {ref.value: constant(ref.value) for ref in others}
    constants = {number: value for number, value in values.items() if value is not None}
    if len(constants) < len(values):
        return None
    if ids.is_meta and how == "view":
        try:
            return _run(op, ids, first, constants)
        except RuntimeError:  # no view: these strides cannot tell it
            pass
    ids = _written(ids)
    if how == "memory":
        ids = ids.contiguous()
    try:
        results = _run(op, ids, first, constants)
    except (RuntimeError, NotImplementedError):  # some kernels know no integers, and padding is 0
        floats = _run(op, (ids + 1).double(), first, constants)
        results = [t.round().long() - 1 for t in floats]
    return list(map(_without_gaps, results)) if how == "windows" else results


def _without_gaps(columns: Tensor) -> Tensor:
    """Windows that reach over the border show what all the others show."""
    full = columns.amax(-1, keepdim=True)
    only_gaps = bool(((columns == full) | (columns < 0)).all())
    return full.expand(columns.shape) if only_gaps else columns


def _run(op: Op, ids: Tensor, first: Ref, constants: Mapping[int, Tensor]) -> list[Tensor]:
    """Call the operation with integers in place of the first tensor."""
    is_used = False

    def value(x: Any) -> Any:
        nonlocal is_used
        if isinstance(x, Ref):
            if x.value == first.value and not is_used:
                is_used = True
                return ids
            return constants[x.value].to(ids.device)
        return type(x)(map(value, x)) if isinstance(x, (list, tuple)) else x

    out = op.call(*value(op.args), **{key: value(x) for key, x in op.kwargs.items()})
    return list(out) if isinstance(out, (list, tuple)) else [out]
