"""What is known of a value: which neurons its entries show, or which entries of parameters they
are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from ..template._blocks import strided_integers
from ..template._schema import EdgeType, NodeType
from ._ids import stepping


class Effect(StrEnum):
    """How a tensor that is aligned with neurons acts on them."""

    BIAS = "bias"
    SHIFT = "shift"
    SCALE = "scale"
    MEAN = "mean"
    VARIANCE = "variance"
    OTHER = "other"

    @property
    def kinds(self) -> tuple[NodeType, EdgeType]:
        """The type of the tensor's source nodes, and of its edges."""
        return _KINDS[self]


_KINDS = {
    Effect.BIAS: (NodeType.BIAS, EdgeType.BIAS),
    Effect.SHIFT: (NodeType.BIAS, EdgeType.SHIFT),
    Effect.SCALE: (NodeType.SCALE, EdgeType.SCALE),
    Effect.MEAN: (NodeType.MEAN, EdgeType.MEAN),
    Effect.VARIANCE: (NodeType.VARIANCE, EdgeType.VARIANCE),
    Effect.OTHER: (NodeType.ENTRYWISE, EdgeType.ENTRYWISE),
}


class Hidden(StrEnum):
    """Why a value lacks an axis that its entries differ along."""

    CHOSEN = "chosen"  # an item was picked by the network's own numbers: which expert it is
    LOOKED_UP = "looked up"  # a row was picked by a number: which one of a table it is
    SUMMED = "summed"  # all items were summed up: the rows of a weight, in its norm


class HiddenAxis(NamedTuple):
    """An axis that a value does not have although its entries differ along it.

    ``experts[chosen]`` of ``experts (E, n, d)`` and ``chosen (tokens,)`` is ``(tokens, n, d)``: which
    of the E experts an entry is of shows on no axis. All that is looked up by the same choice has
    the same hidden axis.

    Attributes:
        why: how it was lost.
        of: number of the value that holds the integers; of the parameter where items were summed.
        nth: counts the axes of one tensor that were lost in the same way.
    """

    why: Hidden
    of: int
    nth: int = 0


class Digit(NamedTuple):
    """The items of an axis: how many, and by what the integer grows from one to the next."""

    size: int
    step: int


HiddenAxes = Mapping[HiddenAxis, Digit]


def new_hidden_axis(why: Hidden, of: int, there: HiddenAxes) -> HiddenAxis:
    """An axis that is none of those that are hidden already."""
    nth = 0
    while HiddenAxis(why, of, nth) in there:
        nth += 1
    return HiddenAxis(why, of, nth)


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neuron that every entry of a value shows.

    Attributes:
        ids: of the value's shape.
        hidden: axes that the value does not have; the id grows along them.
    """

    ids: Tensor
    hidden: HiddenAxes = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entries:
    """The entry of a parameter that every entry of a value is, or is computed from.

    Attributes:
        parameter: value number.
        ids: of the value's shape. On the meta device as long as strides and offset alone tell the
            entries.
        hidden: axes that the value does not have; the entry grows along them.
        effect: how it enters the value, if it is not the value itself.
    """

    parameter: int
    ids: Tensor
    hidden: HiddenAxes = field(default_factory=dict)
    effect: Effect = Effect.BIAS

    @property
    def strided(self) -> bool:
        """Whether strides and offset alone tell the entries."""
        return self.ids.is_meta

    def real(self) -> "Entries":
        """The same with the integers written out."""
        if not self.strided:
            return self
        x = self.ids
        return replace(self, ids=strided_integers(x.shape, x.stride(), int(x.storage_offset())))

    def with_axis(self, axis: HiddenAxis, digit: Digit) -> "Entries":
        """A hidden axis made the first of the value's."""
        hidden = {other: d for other, d in self.hidden.items() if other != axis}
        size, step = digit
        x = self.ids
        if not self.strided:
            return replace(self, ids=stepping(x, size, step), hidden=hidden)
        sizes, strides = (size, *x.shape), (step, *x.stride())
        last = sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        memory = torch.empty(x.storage_offset() + last + 1, dtype=torch.long, device="meta")
        ids = memory.as_strided(sizes, strides, x.storage_offset())
        return replace(self, ids=ids, hidden=hidden)


@dataclass(frozen=True, eq=False)
class Content:
    """Everything known of one value: several :class:`Neurons` if its entries belong to pairs of
    neurons."""

    neurons: tuple[Neurons, ...] = ()
    entries: tuple[Entries, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.neurons or self.entries)


def whole(parameter: int, shape: Sequence[int]) -> Entries:
    """A parameter as it is."""
    return Entries(parameter, torch.empty(tuple(shape), dtype=torch.long, device="meta"))
