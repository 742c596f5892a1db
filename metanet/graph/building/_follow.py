"""Operations whose results stay on the neurons of an operand, axis by axis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor

from ...symmetry import Follow
from ._contents import Content, Digit, Effect, Entries, Hidden, Neurons, new_hidden_axis
from ._ids import place, varies
from ._reduce import reduce
from ._state import Operation, State


def follow(state: State, operation: Operation) -> bool:
    """Axes of the result are axes of the operand, as the operation itself says."""
    flow = operation.word(Follow)
    if flow is None:
        return False
    content = _followed(state, operation, flow.operand.value, flow.axes, operation.op.outputs[0])
    state.put(operation.op.outputs[0], content)
    return True


def follow_alike(state: State, operation: Operation) -> bool:
    """An operation that says nothing of flow: axes that list the same items are the same axes.

    The result shows the neurons that vary most along its axes, and the parameters among the operands
    act on these; where there are no neurons, it is made of the parameters' entries.
    """
    sources = [n for n in dict.fromkeys(operation.op.inputs()) if n in state.contents]
    for out in operation.op.outputs:
        if out is not None and out in state.solved.axes and not state.holds_integers(out):
            _follow_alike(state, operation, sources, out)
    return True


def _follow_alike(state: State, operation: Operation, sources: Sequence[int], out: int) -> None:
    """What one result shows of the values that have axes of the same items."""
    matches = [_match(state, number, out) for number in sources]
    neurons = _best_neurons(state, operation, matches, out)
    state.put(out, neurons)
    if out in state.contents:
        _act(state, neurons, [m for m in matches if not m.has_neurons])
        return
    alike = [m for m in matches if m.varying]
    contents = [_followed(state, operation, m.value, m.axes, out) for m in alike]
    entries = chain.from_iterable(content.entries for content in contents)
    state.put(out, Content(entries=tuple(entries)))


@dataclass(frozen=True)
class _Match:
    """A value, and for each axis of a result the axis of the value that it is.

    Attributes:
        varying: along how many of these its parts differ.
        has_neurons: whether it shows any.
    """

    value: int
    axes: list[int | None]
    varying: int
    has_neurons: bool


def _match(state: State, source: int, out: int) -> _Match:
    content, axes = state.content(source), _same_axes(state, source, out)
    ids = [*(n.ids for n in content.neurons), *(e.ids for e in content.entries)]
    count = sum(varies(part, a) for part in ids for a in axes if a is not None)
    return _Match(source, axes, count, bool(content.neurons))


def _best_neurons(
    state: State, operation: Operation, matches: Sequence[_Match], out: int
) -> Content:
    """The neurons that vary most along the axes of a result."""
    with_neurons = [m for m in matches if m.has_neurons and m.varying]
    if not with_neurons:
        return Content()
    best = max(with_neurons, key=lambda m: m.varying)
    return _followed(state, operation, best.value, best.axes, out)


def _followed(
    state: State, operation: Operation, source: int, axes: Sequence[int | None], out: int | None
) -> Content:
    """What a result shows whose axis i is the source's axis ``axes[i]``.

    Axes of the source that are none of the result's are reduced::

        neurons   sums over them, if they differ there
        entries   an axis is hidden: the norm of a weight has one entry for all of a row
    """
    if out is None or source not in state.contents:
        return Content()
    shape, before = state.shape(out), state.shape(source)
    # weight (out, in) and axes [0]: the result lists the rows, back is [0, None], "in" is reduced
    back: list[int | None] = [None] * len(before)
    for i, axis in enumerate(axes):
        if axis is not None and before[axis] == shape[i]:
            back[axis] = i
    neurons: list[Neurons | None] = []
    for part in state.content(source).neurons:
        ids = state.pool.find(part.ids)
        if not _varying_lost(ids, back):
            neurons.append(Neurons(place(ids, back, shape), part.hidden))
        elif state.pool.is_raw(ids):
            state.summed_inputs = True
        else:
            neurons.append(reduce(state, operation, part, back, shape))
    entries = [_placed(e, back, shape) for e in state.content(source).entries]
    return Content(
        tuple(n for n in neurons if n is not None), tuple(e for e in entries if e is not None)
    )


def _varying_lost(ids: Tensor, back: Sequence[int | None]) -> list[int]:
    """Axes along which integers differ and that are none of the result's."""
    return [a for a, target in enumerate(back) if target is None and varies(ids, a)]


def _placed(e: Entries, back: Sequence[int | None], shape: Sequence[int]) -> Entries | None:
    """Entries over the axes of a result; ``None`` if it takes more than strides to tell what is
    hidden."""
    lost = _varying_lost(e.ids, back)
    if lost and not e.strided:
        return None
    hidden = dict(e.hidden)
    for a in lost:
        axis = new_hidden_axis(Hidden.SUMMED, e.parameter, hidden)
        hidden[axis] = Digit(e.ids.shape[a], e.ids.stride(a))
    return replace(e, ids=place(e.ids, back, shape), hidden=hidden)


def _act(state: State, content: Content, matches: Sequence[_Match]) -> None:
    """Parameters that enter an operation beside neurons."""
    if not content.neurons:
        return
    shape = content.neurons[0].ids.shape
    for match in matches:
        back: list[int | None] = [None] * len(state.shape(match.value))
        for i, axis in enumerate(match.axes):
            if axis is not None:
                back[axis] = i
        for e in state.content(match.value).entries:
            if not _varying_lost(e.ids, back):
                state.attach(replace(e, ids=place(e.ids, back, shape)), content, Effect.OTHER)


def _same_axes(state: State, source: int, out: int) -> list[int | None]:
    """For each axis of a result the first of a value's that lists the same items and is of no other
    axis of the result."""
    leaves = state.solved.leaves
    before, shape = state.shape(source), state.shape(out)
    factors = [leaves.expand(expr) for expr in state.solved.axes[source]]
    remaining = list(range(len(factors)))
    axes: list[int | None] = []
    for expr, size in zip(state.solved.axes[out], shape, strict=True):
        items = leaves.expand(expr)
        same = [b for b in remaining if factors[b] == items and before[b] == size]
        axes.append(same[0] if same else None)
        if same:
            remaining.remove(same[0])
    return axes
