"""Tensors cut into dense pieces, every axis of which is the items of one group, or fixed.

A fused projection is three pieces, a weight behind a concatenation one per part. A complex tensor
counts as the real one that ``view_as_real`` makes of it, so that inner products are the real parts
of complex ones. All that matching needs of a spec is which groups the axes of every piece are, so
nothing behind this file knows of concatenations, products or choices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    @property
    def groups(self) -> tuple[str, ...]:
        """The named groups of its axes, in order, repeated where they repeat."""
        return tuple(a.group for a in self.atoms if a.group is not None)

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


_Axes = list[
    tuple[Axis, int]
]  # expressions, and the number of the tensor's axis that each is part of


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
    named = [isinstance(a, (Leaf, Fixed)) and a.size > 1 and bool(a.group) for a, _ in axes]
    keys = {
        k
        for (a, _), is_named in zip(axes, named, strict=True)
        if is_named
        for k in spec[a.group].keys
    }
    moving = [
        is_named and (spec[a.group].kind == "permutation" or a.group in keys)
        for (a, _), is_named in zip(axes, named, strict=True)
    ]
    order = [i for i in range(len(axes)) if moving[i]] + [
        i for i in range(len(axes)) if not moving[i]
    ]
    atoms = [Atom(axes[i][0].group, axes[i][0].size) for i in order if moving[i]]
    items = prod(a.size for (a, _), m in zip(axes, moving, strict=True) if not m)
    if items > 1:
        atoms.append(Atom(None, items))
    return Piece(
        name,
        tuple(atoms),
        (*cuts, ("permute", tuple(order)), ("reshape", tuple(a.size for a in atoms))),
    )
