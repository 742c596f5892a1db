"""Which entries of the parameters have edges already: each gets its edge once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from ._contents import Entries
from ._ids import NONE


@dataclass
class Covered:
    """A mark for every entry that has an edge; for a parameter that is taken in whole, one for
    all.

    Attributes:
        shapes: of every parameter.
        marks: of every parameter that was met, ``(entries,)``.
    """

    shapes: Mapping[int, tuple[int, ...]]
    marks: dict[int, Tensor] = field(default_factory=dict)

    def take(self, entries: Entries) -> Entries | None:
        """The entries that have no edges yet, ``None`` if there are none. From now on they have."""
        parameter, x = entries.parameter, entries.ids
        marks = self.marks.get(parameter)
        if marks is None:
            count = prod(self.shapes[parameter])
            if entries.strided and _reached(x) == count:  # all of it: no byte per entry
                self.marks[parameter] = torch.ones((), dtype=torch.bool).expand(count)
                return entries
            marks = self.marks[parameter] = torch.zeros(count, dtype=torch.bool)
        if marks.stride() == (0,):  # all entries are, or there is only one
            return None if marks.all() else _mark(entries, marks)
        if entries.strided:
            window = marks.as_strided(x.shape, x.stride(), x.storage_offset())
            if not window.any():
                window.fill_(True)
                return entries
            if window.all():
                return None
        return _mark(entries, marks)


def _reached(ids: Tensor) -> int:
    """How many entries strides reach."""
    return prod(n for n, step in zip(ids.shape, ids.stride(), strict=True) if step)


def _mark(entries: Entries, marks: Tensor) -> Entries | None:
    """The entries without a mark, which get one."""
    ids = entries.real().ids
    is_new = (ids >= 0) & ~marks[ids.clamp(min=0)]
    if not is_new.any():
        return None
    marks[ids[is_new]] = True
    return Entries(entries.parameter, torch.where(is_new, ids, NONE))
