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
        return _cut_out(real_parts(tensor), self.cuts)

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
        """How many entries it has."""
        return prod(a.size for a in self.atoms)


def pieces_of(spec: SymmetrySpec, leave_out: Sequence[str] = STATISTICS) -> list[Piece]:
    """The pieces of all tensors, tied ones once; masks and index tables follow the weights and do
    not count.

    Args:
        leave_out: last parts of the names of tensors that follow but do not count (statistics of
            BatchNorm).
    """
    pieces: list[Piece] = []
    for name, tensor in spec.tensors.items():
        last = name.rpartition(".")[2]
        if tensor.tied_to is not None or tensor.integer or last in leave_out:
            continue
        whole = list(tensor.axes)
        if tensor.is_complex:
            whole.append(Fixed(2, "real and imaginary part"))
        axes = [(axis, number) for number, axis in enumerate(whole)]
        pieces += (_ordered(name, spec, inside, cuts) for inside, cuts in _cut(axes, ()))
    return pieces


# expressions, and the number of the tensor's axis that each is part of
_Axes = list[tuple[Axis, int]]


def _cut(axes: _Axes, cuts: tuple[tuple, ...]) -> Iterator[tuple[_Axes, tuple[tuple, ...]]]:
    """Resolves products and concatenations, from the first axis to the last.

    ::

        (heads x dims) | (kv x dims)   inputs       queries and keys of a fused projection
        narrow 0 to the first part     reshape      ->  heads, dims, inputs
        narrow 0 to the second part    reshape      ->  kv, dims, inputs
    """
    for i, (axis, _) in enumerate(axes):
        if isinstance(axis, Concat):
            yield from _cut_concat(axis, i, axes, cuts)
            return
        if isinstance(axis, Product):
            yield from _cut_product(axis, i, axes, cuts)
            return
    yield axes, cuts


def _cut_concat(
    concat: Concat, place: int, axes: _Axes, cuts: tuple[tuple, ...]
) -> Iterator[tuple[_Axes, tuple[tuple, ...]]]:
    """One part after the other; choices elsewhere that go by the concatenation are made."""
    start = 0
    for n, part in enumerate(concat.parts):
        inside = [(chosen(axis, concat.name, n), number) for axis, number in axes]
        inside[place] = (part, axes[place][1])
        yield from _cut(inside, (*cuts, ("narrow", place, start, part.size)))
        start += part.size


def _cut_product(
    product: Product, place: int, axes: _Axes, cuts: tuple[tuple, ...]
) -> Iterator[tuple[_Axes, tuple[tuple, ...]]]:
    """Each factor as an axis of its own."""
    number = axes[place][1]
    factors = [(part, number) for part in product.parts]
    inside = [*axes[:place], *factors, *axes[place + 1 :]]
    sizes = tuple(axis.size for axis, _ in inside)
    yield from _cut(inside, (*cuts, ("reshape", sizes)))


def _cut_out(tensor: Tensor, cuts: Sequence[tuple]) -> Tensor:
    """What cuts leave of a tensor: ``narrow``, ``reshape`` and ``permute`` with their arguments."""
    for kind, *how in cuts:
        if kind == "narrow":
            tensor = tensor.narrow(*how)
        else:
            tensor = getattr(tensor, kind)(how[0])
    return tensor


def cut_axis(axis: Axis) -> Iterator[tuple[tuple[Axis, ...], Tensor]]:
    """One axis by itself in dense pieces.

    The factors of each piece, and the positions that it has, ``(*sizes)``.

    Parts that depend on another axis are left out.

    >>> for factors, places in cut_axis(Product((Leaf("heads", 2), Leaf("dims", 3)))):
    ...     print(*factors, places.tolist())
    heads[2] dims[3] [[0, 1, 2], [3, 4, 5]]
    """
    for axes, cuts in _cut([(axis, 0)], ()):
        factors = tuple(factor for factor, _ in axes)
        if not any(isinstance(factor, Choice) for factor in factors):
            yield factors, _cut_out(torch.arange(axis.size), cuts)


def _ordered(name: str, spec: SymmetrySpec, axes: _Axes, cuts: tuple[tuple, ...]) -> Piece:
    """A piece with its axes in order, groups of one item among the fixed."""
    named = {
        place: axis.group
        for place, (axis, _) in enumerate(axes)
        if isinstance(axis, (Leaf, Fixed)) and axis.size > 1 and axis.group
    }
    keys = {key for group in named.values() for key in spec[group].keys}
    has_axis = {g for g in named.values() if spec[g].kind == "permutation" or g in keys}
    moving = {place: group for place, group in named.items() if group in has_axis}
    fixed = [place for place in range(len(axes)) if place not in moving]
    atoms = [Atom(group, axes[place][0].size) for place, group in moving.items()]
    fixed_items = prod(axes[place][0].size for place in fixed)
    if fixed_items > 1:
        atoms.append(Atom(None, fixed_items))
    order = ("permute", (*moving, *fixed))
    shape = ("reshape", tuple(atom.size for atom in atoms))
    return Piece(name, tuple(atoms), (*cuts, order, shape))
