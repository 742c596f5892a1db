"""Tensors cut into dense pieces, every axis of which is the items of one group, or fixed.

A fused projection is three pieces, a weight behind a concatenation one per part. A complex tensor
counts as the real one that ``view_as_real`` makes of it, so that inner products are the real parts
of complex ones. All that matching needs of a spec is which groups the axes of every piece are, so
nothing behind this file knows of concatenations, products or choices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from ..graph import real_parts
from ..symmetry import Axis, Choice, Concat, Fixed, Leaf, Product, SymmetrySpec, chosen

STATISTICS = ("running_mean", "running_var")
"""How the statistics of norms end."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One axis of a piece: the items of a group (fixed keys included), or ``size`` fixed items
    without a name."""

    group: str | None
    size: int


@dataclass(frozen=True)
class Piece:
    """A dense part of a tensor.

    The axes of groups stand in the order of the tensor, then come all fixed items as one axis: the
    order in which most tensors are, so that most pieces are views.

    Attributes:
        tensor: its name.
        atoms: the axes.
        cuts: how to take the piece out of the tensor, see :meth:`take`.
    """

    tensor: str
    atoms: tuple[Atom, ...]
    cuts: tuple[tuple, ...]

    def take(self, tensor: Tensor) -> Tensor:
        """The piece of a tensor, with one axis per atom; real, of a complex tensor too."""
        tensor = real_parts(tensor)
        for kind, *how in self.cuts:
            tensor = tensor.narrow(*how) if kind == "narrow" else getattr(tensor, kind)(how[0])
        return tensor

    @cached_property
    def named(self) -> dict[int, str]:
        """The group of every axis that has one."""
        groups = ((axis, atom.group) for axis, atom in enumerate(self.atoms))
        return {axis: group for axis, group in groups if group is not None}

    @property
    def groups(self) -> tuple[str, ...]:
        """The named groups of its axes, in order, repeated where they repeat."""
        return tuple(self.named.values())

    @property
    def size(self) -> int:
        return prod(a.size for a in self.atoms)


def pieces_of(spec: SymmetrySpec, leave_out: Sequence[str] = STATISTICS) -> list[Piece]:
    """The pieces of all tensors, tied ones once; masks and index tables follow the weights and do
    not count.

    Args:
        leave_out: last parts of the names of tensors that follow but do not count (statistics of
            BatchNorm).
    """
    out: list[Piece] = []
    for name, tensor in spec.tensors.items():
        if (
            tensor.tied_to is None
            and not tensor.integer
            and name.rpartition(".")[2] not in leave_out
        ):
            parts = (Fixed(2, "real and imaginary part"),) if tensor.is_complex else ()
            axes = [(axis, n) for n, axis in enumerate((*tensor.axes, *parts))]
            out += (_ordered(name, spec, inside, cuts) for inside, cuts in _cut(axes, ()))
    return out


# expressions, and the number of the tensor's axis that each is part of
_Axes = list[tuple[Axis, int]]


def _cut(axes: _Axes, cuts: tuple[tuple, ...]) -> Iterator[tuple[_Axes, tuple[tuple, ...]]]:
    """Resolves products and concatenations, from the first axis to the last."""
    for i, (axis, number) in enumerate(axes):
        if isinstance(axis, Concat):
            start = 0
            for n, part in enumerate(axis.parts):
                inside = [(chosen(a, axis.name, n), m) for a, m in axes]
                inside[i] = (part, number)
                yield from _cut(inside, (*cuts, ("narrow", i, start, part.size)))
                start += part.size
            return
        if isinstance(axis, Product):
            inside = [*axes[:i], *((p, number) for p in axis.parts), *axes[i + 1 :]]
            yield from _cut(inside, (*cuts, ("reshape", tuple(a.size for a, _ in inside))))
            return
    yield axes, cuts


def cut_axis(axis: Axis) -> Iterator[tuple[tuple[Axis, ...], Tensor]]:
    """One axis by itself in dense pieces.

    The factors of each piece, and the positions that it has, ``(*sizes)``.

    Parts that depend on another axis are left out.
    """
    for factors, cuts in _cut([(axis, 0)], ()):
        if not any(isinstance(f, Choice) for f, _ in factors):
            places = torch.arange(axis.size)
            for kind, *how in cuts:
                places = places.narrow(*how) if kind == "narrow" else places.reshape(how[0])
            yield tuple(f for f, _ in factors), places


def _ordered(name: str, spec: SymmetrySpec, axes: _Axes, cuts: tuple[tuple, ...]) -> Piece:
    """A piece with its axes in order, groups of one item among the fixed."""
    named = {
        place: axis.group
        for place, (axis, _) in enumerate(axes)
        if isinstance(axis, (Leaf, Fixed)) and axis.size > 1 and axis.group
    }
    keys = {key for group in named.values() for key in spec[group].keys}
    moving = {
        place: group
        for place, group in named.items()
        if spec[group].kind == "permutation" or group in keys
    }
    fixed = [place for place in range(len(axes)) if place not in moving]
    order = [*moving, *fixed]
    atoms = [Atom(group, axes[place][0].size) for place, group in moving.items()]
    items = prod(axes[place][0].size for place in fixed)
    if items > 1:
        atoms.append(Atom(None, items))
    return Piece(
        name,
        tuple(atoms),
        (*cuts, ("permute", tuple(order)), ("reshape", tuple(a.size for a in atoms))),
    )
