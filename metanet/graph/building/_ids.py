"""Integers in the place of a value's entries: numbers of nodes, or of entries of parameters.

They are laid out like the value, :data:`NONE` where an entry shows nothing, and an axis along which
the value repeats itself has stride 0. A bias of three channels over a batch of two and four places
is three integers::

    ids          (2, 3, 4) of strides (0, 1, 0)
    compact(ids) (1, 3, 1)                       what there is to compute on
    varying(ids) [1]
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

NONE = -1
"""In the place of an entry that shows nothing."""

_FEW = 10_000  # integers that are faster sorted than marked


def varies(ids: Tensor, axis: int) -> bool:
    """Whether integers differ along an axis."""
    if ids.shape[axis] <= 1 or ids.stride(axis) == 0:
        return False
    if ids.is_meta:
        return True
    (small,) = compact(ids)
    return bool((small != small.narrow(axis, 0, 1)).any())


def varying(ids: Tensor) -> list[int]:
    """The axes along which integers differ."""
    return [axis for axis in range(ids.ndim) if varies(ids, axis)]


def only_first(ids: Tensor, axes: Collection[int]) -> Tensor:
    """The first items along some axes, which stay as axes of size 1."""
    return ids[tuple(slice(0, 1) if a in axes else slice(None) for a in range(ids.ndim))]


def only_varying(ids: Tensor) -> Tensor:
    """The integers without repetition: every axis along which they do not differ has size 1."""
    return only_first(ids, set(range(ids.ndim)).difference(varying(ids)))


def compact(ids: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape without the axes along which all of them are repeated."""
    tensors = (ids, *others)

    def is_repeated(axis: int) -> bool:
        return all(t.stride(axis) == 0 or t.shape[axis] <= 1 for t in tensors)

    repeated = set(filter(is_repeated, range(ids.ndim)))
    return tuple(only_first(t, repeated) for t in tensors)


def lay(ids: Tensor, axis: int, rank: int) -> Tensor:
    """Integers ``(n,)`` along one axis of so many."""
    return ids.view([-1 if a == axis else 1 for a in range(rank)])


def stepping(ids: Tensor, size: int, step: int) -> Tensor:
    """A new first axis along which every integer grows by a step; nothing stays nothing.

    ``[5, -1]`` with size 2 and step 10 is ``[[5, -1], [15, -1]]``.
    """
    grown = ids + torch.arange(size).view(-1, *(1,) * ids.ndim) * step
    return torch.where(ids < 0, NONE, grown)


def unique_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The different pairs ``(pairs, 2)`` of entries of two tensors, and for every entry the number
    of its pair."""
    left, right = left.reshape(-1), right.reshape(-1)
    base = int(right.max()) + 2 if len(right) else 1
    keys, inverse = torch.unique((left + 1) * base + right + 1, return_inverse=True)
    return torch.stack([keys // base - 1, keys % base - 1], 1), inverse


def distinct(ids: Tensor) -> Tensor:
    """The different integers of a tensor, those for nothing left out."""
    (small,) = compact(ids)
    if small.numel() < _FEW:
        unique = torch.unique(small)
        return unique[unique >= 0]
    mask = torch.zeros(int(small.max()) + 2, dtype=torch.bool)
    mask[small.reshape(-1)] = True  # NONE marks the last place, which is no entry
    return mask[:-1].nonzero()[:, 0]


def unique_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of a table as they come, and for every row its number.

    ``[[3, 4], [1, 2], [3, 4]]`` has the rows ``[[3, 4], [1, 2]]``, numbered ``[0, 1, 0]``. Rows are
    told apart by random 64-bit sums: comparing them entry by entry takes ten times as long.
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, table.shape[1:], generator=generator) * 2 + 1
    sums, inverse = torch.unique((table * weights).sum(-1), return_inverse=True)
    places = torch.arange(len(inverse))
    first = torch.full((len(sums),), len(inverse)).scatter_reduce(0, inverse, places, "amin")
    order = first.argsort()
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order))
    return table[first[order]], number[inverse]


def are_distinct(ids: Tensor) -> bool:
    """Whether no integer is there twice."""
    there = ids[ids >= 0]
    return len(torch.unique(there)) == len(there)


def are_one_to_one(left: Tensor, right: Tensor) -> bool:
    """Whether each on the left stands beside one on the right and the other way round."""
    if not ((left >= 0) & (right >= 0)).all():
        return False
    pairs, _ = unique_pairs(left, right)
    return len(pairs) == len(torch.unique(left)) == len(torch.unique(right))


def place(ids: Tensor, axes: Sequence[int | None], shape: Sequence[int]) -> Tensor:
    """Integers whose axis ``i`` becomes axis ``axes[i]`` of the shape.

    ``None``: the axis goes, and its first items stand for all. ``(a, b, c)`` with the axes ``[2,
    None, 0]`` is ``(c, 1, a)``, expanded to the shape.
    """
    for axis in reversed(range(ids.ndim)):
        if axes[axis] is None:
            ids = ids.select(axis, 0)
    targets = [a for a in axes if a is not None]
    ids = ids.permute(sorted(range(len(targets)), key=targets.__getitem__))
    for axis in range(len(shape)):
        if axis not in targets:
            ids = ids.unsqueeze(axis)
    return ids.expand(tuple(shape))
