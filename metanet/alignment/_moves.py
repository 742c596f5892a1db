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
    def lines(self) -> tuple[int, ...]:
        """The piece's axes: run, rest, batch, free. What moves with the run then lies in one
        stretch of memory."""
        run, b, f = range(*self.run), len(self.batch), len(self.free)
        return (*run, *(i for i in self.order[b + f :] if i not in run), *self.order[: b + f])

    @property
    def direct(self) -> bool:
        """Whether the piece is ``(free, run, fixed)`` as it is."""
        return (
            self.run is not None
            and not self.batch
            and self.order[: self.run[1]] == (*range(self.run[1]),)
        )


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
            found = [i for i, a in enumerate(piece.atoms) if a.group in free]
            if not found:
                continue
            if len({piece.atoms[i].group for i in found}) == len(found):
                views.append(_view(number, piece, found, free, keys, movable))
                continue
            twice_pieces.append(number)
            for choice in _choices(piece, found):
                held = [i for i in found if i not in choice]
                if not any(k in free for i in held for k in keys[piece.atoms[i].group]):
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
    roots = [g for g in movable if not any(k in movable for k in keys[g])]
    return [
        (r, *sorted((g for g in movable if r in keys[g]), key=lambda g: len(keys[g])))
        for r in roots
    ]


def _choices(piece: Piece, found: Sequence[int]) -> list[list[int]]:
    """One axis for every free group: all their first ones, then all their second ones."""
    places: dict[str | None, list[int]] = {}
    for i in found:
        places.setdefault(piece.atoms[i].group, []).append(i)
    most = max(map(len, places.values()))
    return [[p[min(n, len(p) - 1)] for p in places.values()] for n in range(most)]


def _view(
    number: int, piece: Piece, found: Sequence[int], free: Sequence[str], keys: Keys, movable: Sequence[str]
) -> View:  # fmt: skip
    groups = [a.group for a in piece.atoms]
    chosen = sorted(found, key=lambda i: free.index(groups[i]))
    wanted = dict.fromkeys(k for i in chosen for k in keys[groups[i]] if k not in free)
    batch = [groups.index(k) for k in wanted if k in groups]
    rest = [i for i in range(len(groups)) if i not in chosen and i not in batch]
    idle = [i for i in batch if groups[i] not in movable]
    arranged = tuple(
        i for i, g in enumerate(groups) if g is not None and i not in chosen and i not in idle
    )
    beside = (
        bool(arranged)
        and arranged == tuple(range(arranged[0], arranged[-1] + 1))
        and not set(arranged) & {*batch}
    )
    inside = {groups[i] for i in arranged}
    beside &= all(k in inside for i in arranged for k in keys[groups[i]])
    return View(
        number, tuple(groups[i] for i in chosen), tuple(groups[i] for i in batch), (*batch, *chosen, *rest),
        arranged, (arranged[0], arranged[-1] + 1) if beside else None,
    )  # fmt: skip


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
    for i in sorted(axes, key=lambda i: len(keys[groups[i]])):
        if groups[i] not in elements:  # a fixed key
            continue
        element, own = elements[groups[i]], keys[groups[i]]
        if not own:
            if not torch.equal(element, torch.arange(len(element))):
                array = array.index_select(i, element.to(array.device))
            continue
        element = element.to(array.device)
        places = (*(groups.index(k) for k in own), i)
        shape = [1] * array.ndim
        for place, size in zip(places, element.shape, strict=True):
            shape[place] = size
        picks = element.permute(sorted(range(len(places)), key=lambda d: places[d])).reshape(shape)
        array = array.gather(i, picks.expand(array.shape))
    return array


def run_index(piece: Piece, view: View, elements: Mapping[str, Tensor], keys: Keys) -> Tensor:
    """Old place of every place along the axes of a run, taken as one axis."""
    first, last = view.run
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
