"""The neurons that a weight makes, and the edges of its entries."""

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ...symmetry import Contraction
from ..template._schema import EdgeType, NodeType
from ._contents import Digit, Effect, Entries, Hidden, HiddenAxes, HiddenAxis, Neurons
from ._ids import stepping, varies
from ._state import State


def new_neurons(
    state: State,
    out: int,
    flow: Contraction,
    sizes: Sequence[int],
    rows: Tensor,
    weights: Sequence[Entries],
    hidden: HiddenAxes,
) -> tuple[Tensor, dict[HiddenAxis, Digit]]:
    """New neurons over some axes, and over hidden ones, which are the slowest.

    Args:
        sizes: of the axes; the last is the one that the weight makes.
        rows: the neurons that it reads.
        weights: the tensors that it is made of.
        hidden: the axes, and how many items each has.
    """
    count = prod(sizes)
    digits: dict[HiddenAxis, Digit] = {}
    times = 1
    for axis, (size, _) in hidden.items():
        digits[axis] = Digit(size, count * times)
        times *= size
    name = state.uses.names[weights[0].parameter]
    axes = [flow.out_axis] if sizes[-1] > 1 else []
    layer = state.pool.layer(rows) + 1
    site = state.new_site(name, (times, *sizes), NodeType.HIDDEN, layer, out, axes)
    return site.ids[:count].view(*sizes), digits


def chosen_axes(weights: Sequence[Entries], data: Neurons) -> dict[HiddenAxis, Digit]:
    """Axes along which a weight is one of several by the network's own choice, other than those of
    the neurons that it reads."""
    return {
        axis: digit
        for w in weights
        for axis, digit in w.hidden.items()
        if axis.why is Hidden.CHOSEN and axis not in data.hidden
    }


def add_edges(
    state: State,
    entries: Entries,
    source: Tensor,
    destination: Tensor,
    hidden_source: HiddenAxes,
    hidden_destination: HiddenAxes,
    type: EdgeType,
    along: tuple[int, int],
) -> None:
    """The edges of a tensor that a weight is made of, over its axes.

    One that varies along both sides is a weight; else it scales one side (weight normalisation).
    Args:
        along: the axes of all three that sources and destinations lie along.
    """
    visible = destination.ndim
    for axis, digit in entries.hidden.items():
        entries = entries.with_axis(axis, digit)
        source = _with_axis(source, digit.size, hidden_source.get(axis))
        destination = _with_axis(destination, digit.size, hidden_destination.get(axis))
    new = destination.ndim - visible
    is_in, is_out = (
        entries.ids.shape[axis + new] == 1 or varies(entries.ids, axis + new) for axis in along
    )
    if is_in and is_out:
        state.uses.weight(entries, source, destination, type)
        return
    effect = Effect.SCALE if entries.effect is Effect.BIAS else entries.effect
    state.uses.attach(entries, source if is_in else destination, *effect.kinds)


def _with_axis(nodes: Tensor, size: int, digit: Digit | None) -> Tensor:
    """A new first axis, along which nodes differ if they have it hidden."""
    if digit is None:
        return nodes.unsqueeze(0).expand(size, *nodes.shape)
    return stepping(nodes, size, digit.step)
