"""Convolutions: entries of a kernel are parallel edges."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ...symmetry import Contraction
from ..template._schema import EdgeType
from ._contents import Entries, Neurons
from ._edges import add_edges, new_neurons
from ._ids import place
from ._rows import rows_of, with_origins
from ._state import State


@dataclass(frozen=True)
class _Kernel:
    """How the edges of a convolution lie: over the axes ``(u, group, *its two, *positions)``.

    The weight ``(groups * o, i, ...)`` is ``(groups, o, i, ...)``; transposed, ``(groups * i, o,
    ...)`` is ``(groups, i, o, ...)``.
    """

    groups: int
    first: int
    second: int
    positions: tuple[int, ...]
    transposed: bool

    @classmethod
    def of(cls, flow: Contraction) -> "_Kernel":
        rows, second, *positions = flow.weight.shape
        transposed = flow.weight_in == 0
        return cls(flow.groups, rows // flow.groups, second, tuple(positions), transposed)

    @property
    def made(self) -> int:
        """How many neurons it makes."""
        return self.groups * (self.second if self.transposed else self.first)

    @property
    def along(self) -> tuple[int, int]:
        """The axes of inputs and outputs."""
        return (2, 3) if self.transposed else (3, 2)

    def laid(self, ids: Tensor, axis: int) -> Tensor:
        """Nodes ``(u, n)`` along the groups and one of its two axes."""
        inner = [1, 1]
        inner[axis - 2] = ids.shape[-1] // self.groups
        return ids.view(-1, self.groups, *inner, *(1,) * len(self.positions))

    def split(self, entries: Entries) -> Entries:
        """The weight with its groups as an axis of their own."""
        shape = (self.groups, self.first, self.second, *self.positions)
        try:
            return replace(entries, ids=entries.ids.view(shape))
        except RuntimeError:  # strides cannot tell it
            return replace(entries, ids=entries.real().ids.reshape(shape))


def convolve(
    state: State, out: int, flow: Contraction, data: Neurons, weights: Sequence[Entries]
) -> Neurons:
    """Channels are summed over within groups, at every position of the kernel."""
    others = [a for a in range(len(flow.data)) if a != flow.data_axis]
    x = state.pool.find(data.ids.permute(*others, flow.data_axis))
    rows = with_origins(state, rows_of(state, x, 0).nodes)  # (u, channels)
    kernel = _Kernel.of(flow)
    ids, hidden = new_neurons(state, out, flow, (kernel.made,), rows, weights, {})
    inputs, outputs = kernel.along
    source, destination = kernel.laid(rows, inputs), kernel.laid(ids.unsqueeze(0), outputs)
    type = EdgeType.TRANSPOSED if kernel.transposed else EdgeType.CONVOLUTION
    for w in weights:
        entries = kernel.split(w)
        shape = (len(rows), *entries.ids.shape)
        entries = replace(entries, ids=entries.ids.unsqueeze(0).expand(shape))
        ends = source.expand(shape), destination.expand(shape)
        add_edges(state, entries, *ends, data.hidden, hidden, type, kernel.along)
    return Neurons(place(ids, [flow.out_axis], state.shape(out)), hidden)
