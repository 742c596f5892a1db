"""Factors of the axes of a parameter, and which of them move by what another says."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ...symmetry import Product, SymmetrySpec
from ._contents import Digit
from ._groups import keys_in, names_in


@dataclass(frozen=True)
class _Factor:
    """A factor of an axis: where it stands in the parameter's own order, the groups it is made of,
    and those that say how it moves."""

    digit: Digit
    names: frozenset[str]
    keys: frozenset[str]


def keyed_factors(spec: SymmetrySpec, tensor: str) -> list[tuple[Digit, Digit]]:
    """Pairs of factors of a tensor's axes: one that moves by what the other says, and the other.

    A query weight ``(4 heads x 8 dims, 32)`` whose dims move in each head on their own has one pair:
    ``(size 8, step 32)`` by ``(size 4, step 256)``.
    """
    factors = list(_factors(spec, tensor))
    return [
        (moving.digit, key.digit)
        for moving in factors
        for key in factors
        if moving.digit != key.digit and moving.keys & key.names
    ]


def _factors(spec: SymmetrySpec, tensor: str) -> Iterator[_Factor]:
    keys = {group.name: group.keys for group in spec.groups}
    axes, shape = spec.tensors[tensor].axes, spec.tensors[tensor].shape
    step = prod(shape)
    for axis in axes:
        for part in axis.parts if isinstance(axis, Product) else (axis,):
            step //= part.size
            digit = Digit(part.size, step)
            yield _Factor(digit, frozenset(names_in(part)), frozenset(keys_in(part, keys)))
