"""One use of a parameter: entries, and the nodes that their edges join."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..template._schema import EdgeType
from ._contents import Entries
from ._ids import NONE, only_first, varies, varying


@dataclass
class Use:
    """Entries of a parameter and their ends, all three over the same axes.

    A linear map from two neurons to three::

        entries      0 1      source  7 8      destination  9  9
                     2 3              7 8                  10 10
                     4 5              7 8                  11 11

    Attributes:
        parameter: value number.
        entries, source, destination: of one shape.
        type: of the edges.
        module: whose forward it was.
    """

    parameter: int
    entries: Entries
    source: Tensor
    destination: Tensor
    type: EdgeType
    module: str = ""

    def ends(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Source and destination of some entries, :data:`NONE` where they have none."""
        find = self._strided_ends if self.entries.strided else self._listed_ends
        source, destination, inside = find(entries)
        return torch.where(inside, source, NONE), torch.where(inside, destination, NONE)

    def _strided_ends(self, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ends by the digits of the entries, the slowest axis first."""
        x = self.entries.ids
        strides = x.stride()
        remainder = entries - int(x.storage_offset())
        inside = remainder >= 0
        index: list[Tensor] = [torch.zeros_like(entries)] * x.ndim
        for axis in sorted(range(x.ndim), key=lambda a: -strides[a]):
            if x.shape[axis] > 1 and strides[axis]:
                index[axis] = remainder // strides[axis]
                remainder = remainder - index[axis] * strides[axis]
                inside &= index[axis] < x.shape[axis]
        inside &= remainder == 0
        at = tuple([torch.where(inside, i, 0) for i in index])
        if not at:
            return self.source.expand_as(entries), self.destination.expand_as(entries), inside
        return self.source[at], self.destination[at], inside

    def _listed_ends(self, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ends by searching for the entries."""
        listed = self.entries.ids.reshape(-1)
        order = listed.argsort()
        listed = listed[order]
        at = torch.searchsorted(listed, entries.contiguous()).clamp(max=len(listed) - 1)
        inside = listed[at] == entries
        return self.source.reshape(-1)[order[at]], self.destination.reshape(-1)[order[at]], inside

    def tells_apart(self, entries: Entries, axis: int) -> bool:
        """Whether the items of an axis of entries (the first ones along all others) go to different
        nodes."""
        if not varies(entries.ids, axis):
            return False
        others = [a for a in range(entries.ids.ndim) if a != axis]
        line = replace(entries, ids=only_first(entries.ids, others)).real().ids
        _, nodes = self.ends(line.reshape(-1))
        return len(torch.unique(nodes[nodes >= 0])) > 1


def written_out(entries: Entries, nodes: Tensor, use: Use | None = None) -> tuple[Tensor, Tensor]:
    """Entries and nodes along those axes along which the nodes differ (or those of another use),
    as two lists."""
    differ = set(varying(nodes))
    if use is not None:
        differ.update(a for a in range(nodes.ndim) if use.tells_apart(entries, a))
    alike = set(range(nodes.ndim)) - differ
    ids = replace(entries, ids=only_first(entries.ids, alike), hidden={}).real().ids.reshape(-1)
    there = ids >= 0
    return ids[there], only_first(nodes, alike).reshape(-1)[there]
