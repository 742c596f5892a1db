"""Parameters that flow like activations: neurons of their own."""

from collections.abc import Sequence

from ..template._schema import NodeType
from ._contents import Entries, Neurons
from ._ids import place
from ._state import State


def activate(state: State, value: int, axis: int | None, entries: Sequence[Entries]) -> Neurons:
    """Neurons along one axis of a parameter (its last), fed by the others' rows.

    A table of positions ``(places, 8)`` that is the first part of a stream is 8 neurons with one
    source node for each place. Where these move by the item of another axis (states of each
    channel's own), there are neurons for all its items.

    Args:
        value: that shows the entries.
    """
    shape = entries[0].ids.shape
    axis = len(shape) - 1 if axis is None else axis
    shown = min(axis, len(state.shape(value)) - 1)
    name = state.uses.names[entries[0].parameter]
    keys = {a for e in entries for a in state.uses.key_axes(e, [axis])}
    along = [*sorted(keys), axis]
    sizes = [shape[a] for a in along]
    site = state.new_site(name, sizes, NodeType.HIDDEN, 1, value, [shown])
    ids = place(site.ids.view(sizes), along, shape)
    for e in entries:
        state.uses.attach(e, ids, *e.effect.kinds)
    return Neurons(ids)
