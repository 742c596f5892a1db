"""Which groups move the items of an axis, and what these go by."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import prod

from ...symmetry import Axis, Choice, Concat, Fixed, Leaf, Product, chosen


def groups_along(axis: Axis) -> list[str]:
    """For every item of an axis the group that moves it, "" if none does."""
    if isinstance(axis, Leaf):
        return [axis.group] * axis.size
    if isinstance(axis, Fixed):
        return [""] * axis.size
    if isinstance(axis, Concat):
        return [g for part in axis.parts for g in groups_along(part)]
    if isinstance(axis, Choice):
        return groups_along(axis.parts[0])
    return _along_product(axis.parts)


def _along_product(parts: Sequence[Axis]) -> list[str]:
    """The groups along a product: the fastest of the factors that are moved decides.

    ``heads (2) x dim (3)`` is dim six times; heads, if the second factor is fixed.
    """
    keys = set().union(*(keys_in(part, {}) for part in parts))
    for n, part in enumerate(parts):
        if isinstance(part, Concat) and part.name in keys:
            return _interleaved(parts, n, part)
    groups = [""]
    for part in parts:
        faster = groups_along(part)
        groups = [fast or slow for slow in groups for fast in faster]
    return groups


def _interleaved(parts: Sequence[Axis], at: int, key: Concat) -> list[str]:
    """The groups along a product of which some factors go by another, a concatenation: a shuffled
    one.

    ``(k?(a / b) x k:(1 | 1))`` is a, b, a, b, ...
    """
    segments = []
    for n, segment in enumerate(key.parts):
        inside = [chosen(part, key.name, n) for part in parts]
        inside[at] = segment
        segments.append(iter(groups_along(Product(tuple(inside)))))
    times = prod(part.size for part in parts[:at])
    fast = prod(part.size for part in parts[at + 1 :])
    lengths = [segment.size * fast for segment in key.parts]
    groups: list[str] = []
    for items, length in list(zip(segments, lengths, strict=True)) * times:
        groups += islice(items, length)
    return groups


def names_in(axis: Axis) -> set[str]:
    """Names of the groups and concatenations that an axis is made of."""
    parts = list(_parts(axis))
    concatenations = {part.name for part in parts if isinstance(part, Concat)}
    groups = {part.group for part in parts if isinstance(part, Leaf | Fixed)}
    return (concatenations | groups) - {""}


def keys_in(axis: Axis, keys: Mapping[str, Sequence[str]]) -> set[str]:
    """Names of what says how an axis moves: the keys of its groups, and the concatenations that its
    choices go by."""
    choices = {p.by for p in _parts(axis) if isinstance(p, Choice)}
    return choices | {k for name in names_in(axis) for k in keys.get(name, ())}


def _parts(axis: Axis) -> Iterator[Axis]:
    yield axis
    for part in getattr(axis, "parts", ()):
        yield from _parts(part)
