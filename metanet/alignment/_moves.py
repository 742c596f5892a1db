"""What a step of the ascent looks at: the groups it frees, and how every piece with them is
unfolded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..symmetry import SymmetrySpec
from ._pieces import Piece

Keys = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class View:
    """One way to unfold a piece: some axes are free, the others are arranged as they are.

    Attributes:
        piece: its number.
        free, batch: groups that are free, and groups that key these.
        order: the piece's axes: batch, free, rest.
        arranged: axes that are arranged as they stand now.
        run: first and last such axis plus one, where they lie side by side and may be indexed as
            one.
    """

    piece: int
    free: tuple[str, ...]
    batch: tuple[str, ...]
    order: tuple[int, ...]
    arranged: tuple[int, ...]
    run: tuple[int, int] | None

    @property
    def stretch(self) -> tuple[int, int]:
        """The run of a view that has one."""
        if self.run is None:
            raise ValueError(
                f"the axes of piece {self.piece} that are arranged do not lie together"
            )
        return self.run

    @property
    def lines(self) -> tuple[int, ...]:
        """The piece's axes: run, rest, batch, free. What moves with the run then lies in one
        stretch of memory."""
        run = range(*self.stretch)
        ahead = len(self.batch) + len(self.free)
        others = (axis for axis in self.order[ahead:] if axis not in run)
        return (*run, *others, *self.order[:ahead])

    @property
    def direct(self) -> bool:
        """Whether the piece is ``(free, run, fixed)`` as it is."""
        if self.run is None or self.batch:
            return False
        end = self.run[1]
        return self.order[:end] == tuple(range(end))


@dataclass(frozen=True)
class Move:
    """One step: a group, and those that hang on it.

    Attributes:
        root: the group.
        free: all groups that are assigned, keys before what they key.
        views: pieces in which every free group has one axis: what they earn is linear in where
            items go.
        twice: views of pieces in which some free group has several axes, one axis of each group
            free at a time.
        twice_pieces: numbers of those pieces.
    """

    root: str
    free: tuple[str, ...]
    views: tuple[View, ...]
    twice: tuple[View, ...]
    twice_pieces: tuple[int, ...]


def keys_of(spec: SymmetrySpec) -> dict[str, tuple[str, ...]]:
    """The keys of every group that has more than one item."""
    return {g.name: tuple(k for k in g.keys if spec[k].size > 1) for g in spec.groups if g.size > 1}


def moves_of(spec: SymmetrySpec, pieces: Sequence[Piece], keys: Keys) -> list[Move]:
    """A move for every group that hangs on no other one that can move."""
    used = {g for p in pieces for g in p.groups}
    movable = movable_groups(spec, keys, used)
    out = []
    for free in families(movable, keys):
        root = free[0]
        views, twice, twice_pieces = [], [], []
        for number, piece in enumerate(pieces):
            axes = {i: name for i, name in piece.named.items() if name in free}
            if not axes:
                continue
            if len(set(axes.values())) == len(axes):
                views.append(_view(number, piece, list(axes), free, keys, movable))
                continue
            twice_pieces.append(number)
            for choice in _choices(axes):
                held = [name for i, name in axes.items() if i not in choice]
                if not any(key in free for name in held for key in keys[name]):
                    twice.append(_view(number, piece, choice, free, keys, movable))
        out.append(Move(root, free, tuple(views), tuple(twice), tuple(twice_pieces)))
    return out


def movable_groups(spec: SymmetrySpec, keys: Keys, used: Collection[str]) -> list[str]:
    """Groups of more than one item that can be permuted, of those that are used."""
    return [
        g.name for g in spec.groups if g.kind == "permutation" and g.name in keys and g.name in used
    ]


def families(movable: Sequence[str], keys: Keys) -> list[tuple[str, ...]]:
    """Every group that hangs on no other movable one.

    Each with all that hang on it, keys before what they key.
    """
    result = []
    for root in movable:
        if any(key in movable for key in keys[root]):
            continue
        below = [g for g in movable if root in keys[g]]
        below.sort(key=lambda g: len(keys[g]))
        result.append((root, *below))
    return result


def _choices(axes: Mapping[int, str]) -> list[list[int]]:
    """One axis for every free group: all their first ones, then all their second ones.

    >>> _choices({0: "a", 1: "b", 3: "a"})
    [[0, 1], [3, 1]]

    Args:
        axes: the group of each axis.
    """
    places: dict[str, list[int]] = {}
    for axis, group in axes.items():
        places.setdefault(group, []).append(axis)
    most = max(map(len, places.values()))
    return [[at[min(n, len(at) - 1)] for at in places.values()] for n in range(most)]


def _view(
    number: int,
    piece: Piece,
    axes: Sequence[int],
    free: Sequence[str],
    keys: Keys,
    movable: Sequence[str],
) -> View:
    """A piece unfolded with some of its axes free.

    ::

        heads (free)  dims (free, keyed by heads)  inputs (arranged)
        order  heads dims | inputs         run  inputs alone: one axis of lines

    Args:
        axes: those that are free.
    """
    named = piece.named
    free_axes = sorted(axes, key=lambda axis: free.index(named[axis]))
    above = dict.fromkeys(key for i in free_axes for key in keys[named[i]] if key not in free)
    place = {group: axis for axis, group in reversed(named.items())}  # of two, the first
    batch = [place[key] for key in above if key in place]
    others = [i for i in range(len(piece.atoms)) if i not in free_axes and i not in batch]
    idle = [i for i in batch if named[i] not in movable]
    arranged = tuple(i for i in named if i not in free_axes and i not in idle)
    return View(
        piece=number,
        free=tuple(named[i] for i in free_axes),
        batch=tuple(named[i] for i in batch),
        order=(*batch, *free_axes, *others),
        arranged=arranged,
        run=_run(arranged, batch, named, keys),
    )


def _run(
    arranged: tuple[int, ...], batch: Sequence[int], named: Mapping[int, str], keys: Keys
) -> tuple[int, int] | None:
    """The axes that are arranged as one, from the first to one past the last; ``None`` if they do
    not lie side by side, or what keys them lies elsewhere."""
    if not arranged or arranged != tuple(range(arranged[0], arranged[-1] + 1)):
        return None
    inside = {named[axis] for axis in arranged}
    is_closed = all(key in inside for axis in arranged for key in keys[named[axis]])
    if not is_closed or not set(arranged).isdisjoint(batch):
        return None
    return arranged[0], arranged[-1] + 1


def arrange(
    array: Tensor,
    groups: Sequence[str | None],
    axes: Sequence[int],
    elements: Mapping[str, Tensor],
    keys: Keys,
) -> Tensor:
    """Moves an array along some of its axes.

    Args:
        groups: of every axis.
        axes: those to move along.
        elements: for each group ``(*sizes of its keys, size)``.
    """
    at_axes = ((axis, groups[axis]) for axis in axes)
    named = [(axis, group) for axis, group in at_axes if group is not None and group in elements]
    for axis, group in sorted(named, key=lambda each: len(keys[each[1]])):
        element = elements[group]
        if keys[group]:
            places = (*(groups.index(key) for key in keys[group]), axis)
            array = _arrange_by_keys(array, element.to(array.device), places)
        elif not torch.equal(element, torch.arange(len(element))):
            array = array.index_select(axis, element.to(array.device))
    return array


def _arrange_by_keys(array: Tensor, element: Tensor, places: Sequence[int]) -> Tensor:
    """Moves an array along one axis, each part of it as its keys say.

    Args:
        element: ``(*sizes of the keys, size)``.
        places: axes of the keys, then the one to move along.
    """
    shape = [1] * array.ndim
    for place, size in zip(places, element.shape, strict=True):
        shape[place] = size
    in_order = sorted(range(len(places)), key=lambda digit: places[digit])
    picks = element.permute(in_order).reshape(shape)
    return array.gather(places[-1], picks.expand(array.shape))


def run_index(piece: Piece, view: View, elements: Mapping[str, Tensor], keys: Keys) -> Tensor:
    """Old place of every place along the axes of a run, taken as one axis."""
    first, last = view.stretch
    sizes = [a.size for a in piece.atoms[first:last]]
    groups = [a.group for a in piece.atoms[first:last]]
    return arrange(
        torch.arange(prod(sizes)).reshape(sizes), groups, range(len(sizes)), elements, keys
    ).flatten()


def unfold(array: Tensor, view: View) -> Tensor:
    """``(batch, free, rest)``, without a copy where the layout allows."""
    shape = array.permute(view.order).shape
    b, f = len(view.batch), len(view.free)
    return array.permute(view.order).reshape(prod(shape[:b]), prod(shape[b : b + f]), -1)
