"""Values put together side by side: concatenations, and what is written into part of a value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from ...symmetry import Concatenate, Write
from ..template._schema import EdgeType, NodeType
from ._activate import activate
from ._contents import Content, Effect, Entries, HiddenAxis, Neurons
from ._ids import NONE, only_first, varies
from ._merge import merge
from ._state import Operation, State


@dataclass(frozen=True)
class _Piece:
    """What stands beside others.

    Attributes:
        value: number of the value that shows it.
        shape: of the piece.
        content: what it shows.
    """

    value: int
    shape: tuple[int, ...]
    content: Content

    @property
    def is_parameter(self) -> bool:
        return bool(self.content.entries) and not self.content.neurons


def concatenate(state: State, operation: Operation) -> bool:
    """Values one behind the other.

    ::

        channels    (batch, 3) | (batch, 5)      8 neurons, those of both
        places      (class token) | (patches)    places of one stream: the neurons of both flow into
                                                 new ones, or are the same already
        parameter   (class token) | (patches)    it acts on the neurons of its neighbours
    """
    flow = operation.word(Concatenate)
    if flow is None:
        return False
    pieces = []
    for operand in flow.operands:
        if 0 in operand.shape:
            continue
        content, shape = state.content(operand.value), operand.shape
        if flow.stacked:
            content = _unsqueezed(content, flow.axis)
            shape = (*shape[: flow.axis], 1, *shape[flow.axis :])
        pieces.append(_Piece(operand.value, shape, content))
    state.put(operation.out, _side_by_side(state, pieces, flow.axis, flow.stacked))
    return True


def write(state: State, operation: Operation) -> bool:
    """A value written into another: what remains before and behind, with the value between."""
    flow = operation.word(Write)
    if flow is None:
        return False
    into, axis, stop = flow.into, flow.axis, flow.start + flow.count
    source, old = state.content(flow.source.value), state.content(into.value)
    if flow.single:
        source = _unsqueezed(source, axis)

    def piece(value: int, content: Content, count: int) -> _Piece:
        shape = (*into.shape[:axis], count, *into.shape[axis + 1 :])
        return _Piece(value, shape, content)

    def remains(first: int, count: int) -> _Piece:
        return piece(into.value, _narrowed(old, axis, first, count) if count else old, count)

    pieces = [
        remains(0, flow.start),
        piece(flow.source.value, source, flow.count),
        remains(stop, into.shape[axis] - stop),
    ]
    pieces = [p for p in pieces if p.shape[axis]]
    state.put(operation.out, _side_by_side(state, pieces, axis, stacked=False))
    return True


def _side_by_side(state: State, pieces: Sequence[_Piece], axis: int, stacked: bool) -> Content:
    """Parameters among the pieces act on the neurons of their neighbours, or are neurons."""
    contents = _tables_as_neurons(state, pieces, axis)
    pieces = [replace(p, content=c) for p, c in zip(pieces, contents, strict=True)]
    everything = [n for p in pieces for n in p.content.neurons]
    if not everything:
        return Content(entries=_entries(pieces, axis))
    shapes = [p.shape for p in pieces]
    if stacked:
        parts = [_neurons_of(state, p, None) for p in pieces]
    elif any(varies(n.ids, axis) for n in everything):
        parts = [_neurons_of(state, p, axis) for p in pieces]
    else:
        parts = _places(state, pieces, axis, everything[0].ids.narrow(axis, 0, 1))
    # a piece may show several sets of neurons (a, b) and its neighbour one (c); sets of one rank meet:
    #     first set    a a a | c c
    #     second set   b b b | . .
    ranks = zip_longest(*parts)
    return Content(tuple([_one_set(neurons, shapes, axis) for neurons in ranks]))


def _one_set(
    neurons: Sequence[Neurons | None], shapes: Sequence[tuple[int, ...]], axis: int
) -> Neurons:
    """Neurons of pieces one behind the other, ``None`` for a piece that shows none."""
    hidden = next(n.hidden for n in neurons if n is not None)
    ids = [None if n is None else n.ids for n in neurons]
    return Neurons(_cat(ids, shapes, axis), hidden)


def _tables_as_neurons(state: State, pieces: Sequence[_Piece], axis: int) -> list[Content]:
    """Rows of several tables side by side on the last axis (sums of what is looked up) are
    neurons."""
    contents = [p.content for p in pieces]
    tables = {e.parameter for c in contents for e in c.entries if e.hidden}
    if len(tables) < 2 or axis != len(pieces[0].shape) - 1:
        return contents
    return [Content(tuple(_neurons_of(state, p, axis)), _entries_beside(p)) for p in pieces]


def _entries_beside(piece: _Piece) -> tuple[Entries, ...]:
    """The entries of a piece besides its neurons."""
    return () if piece.is_parameter else piece.content.entries


def _neurons_of(state: State, piece: _Piece, axis: int | None) -> list[Neurons]:
    """The neurons of a piece; a parameter is made some."""
    if piece.is_parameter:
        return [activate(state, piece.value, axis, piece.content.entries)]
    return list(piece.content.neurons)


def _places_like(state: State, piece: _Piece, like: Tensor) -> list[Neurons]:
    """The neurons of a piece that holds more places of the same neurons: a parameter acts on them,
    and where there is nothing (zeros before the first token), they are there as well."""
    if piece.content.neurons:
        return list(piece.content.neurons)
    ids = like.expand(piece.shape)
    for e in piece.content.entries:
        state.uses.attach(e, ids, NodeType.BIAS, EdgeType.BIAS)
    return [Neurons(ids)]


def _places(state: State, pieces: Sequence[_Piece], axis: int, like: Tensor) -> list[list[Neurons]]:
    """The neurons of pieces along whose axis neurons are alike: it counts places."""
    parts = [_places_like(state, p, like) for p in pieces]
    shapes = [p.shape for p in pieces]
    if all(shape[axis] <= 1 for shape in shapes):
        return parts
    return _one_stream(state, parts, shapes, axis)


def _one_stream(
    state: State, parts: list[list[Neurons]], shapes: Sequence[tuple[int, ...]], axis: int
) -> list[list[Neurons]]:
    """Positions of several sites behind one another: all of them flow into one set of neurons."""
    firsts = [state.pool.find(p[0].ids.narrow(axis, 0, 1)) for p in parts if p]
    if any(ids.shape != firsts[0].shape for ids in firsts):
        return parts
    if all(torch.equal(ids, firsts[0]) for ids in firsts):
        return parts
    streams = [Neurons(firsts[0])]
    for ids in firsts[1:]:
        streams = merge(state, [*streams, Neurons(ids)], "other")
    if len(streams) > 1:
        return parts
    (stream,) = streams
    return [
        [Neurons(stream.ids.expand(shape)), *p[1:]] if p else p
        for p, shape in zip(parts, shapes, strict=True)
    ]


def _cat(pieces: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]], axis: int) -> Tensor:
    """Integers one behind the other, ``None`` for a piece that shows nothing; repeated axes stay
    repeated."""
    nothing = torch.full((), NONE)
    ids = [
        nothing.expand(shape) if piece is None else piece
        for piece, shape in zip(pieces, shapes, strict=True)
    ]

    def is_repeated(a: int) -> bool:
        return a != axis and all(t.stride(a) == 0 or t.shape[a] <= 1 for t in ids)

    repeated = set(filter(is_repeated, range(ids[0].ndim)))
    sizes = list(ids[0].shape)
    sizes[axis] = sum(t.shape[axis] for t in ids)
    return torch.cat([only_first(t, repeated) for t in ids], axis).expand(sizes)


def _entries(pieces: Sequence[_Piece], axis: int) -> tuple[Entries, ...]:
    """The entries of all pieces; those of a parameter side by side with itself are one."""
    shapes = [p.shape for p in pieces]
    merged: list[Entries] = []
    for i, piece in enumerate(pieces):
        for e in piece.content.entries:
            alone: list[Tensor | None] = [None] * len(pieces)
            alone[i] = e.real().ids
            new = replace(e, ids=_cat(alone, shapes, axis))
            place = next((j for j, old in enumerate(merged) if _fit_together(old, new)), None)
            if place is None:
                merged.append(new)
            else:
                old = merged[place]
                both = torch.where(old.ids < 0, new.ids, old.ids)
                merged[place] = replace(old, ids=both)
    return tuple(merged)


def _fit_together(one: Entries, other: Entries) -> bool:
    """Whether they are of one parameter and leave room for each other."""
    if _what(one) != _what(other):
        return False
    return bool(((one.ids < 0) | (other.ids < 0)).all())


def _what(entries: Entries) -> tuple[int, dict[HiddenAxis, object], Effect]:
    return entries.parameter, dict(entries.hidden), entries.effect


def _narrowed(content: Content, axis: int, start: int, length: int) -> Content:
    """A stretch of an axis."""
    return _mapped(content, lambda ids: ids.narrow(axis, start, length))


def _unsqueezed(content: Content, axis: int) -> Content:
    """With a new axis of size 1."""
    return _mapped(content, lambda ids: ids.unsqueeze(axis))


def _mapped(content: Content, function: Callable[[Tensor], Tensor]) -> Content:
    """The same after a rearrangement of all integers."""
    neurons = tuple(Neurons(function(n.ids), n.hidden) for n in content.neurons)
    return Content(neurons, tuple(replace(e, ids=function(e.ids)) for e in content.entries))
