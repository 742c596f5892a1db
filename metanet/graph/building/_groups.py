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
    for n, part in enumerate(axis.parts):
        if isinstance(part, Concat) and any(part.name in keys_in(p, {}) for p in axis.parts):
            return _interleaved(axis.parts, n, part)
    out = [""]
    for part in axis.parts:
        own = groups_along(part)
        out = [b or a for a in out for b in own]
    return out


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
    slow, fast = (prod(part.size for part in some) for some in (parts[:at], parts[at + 1 :]))
    lengths = [segment.size * fast for segment in key.parts]
    return [
        g
        for _ in range(slow)
        for groups, n in zip(segments, lengths, strict=True)
        for g in islice(groups, n)
    ]


def names_in(axis: Axis) -> set[str]:
    """Names of the groups and concatenations that an axis is made of."""
    own = {
        p.name if isinstance(p, Concat) else p.group
        for p in _parts(axis)
        if isinstance(p, (Concat, Leaf, Fixed))
    }
    return own - {""}


def keys_in(axis: Axis, keys: Mapping[str, Sequence[str]]) -> set[str]:
    """Names of what says how an axis moves: the keys of its groups, and the concatenations that its
    choices go by."""
    choices = {p.by for p in _parts(axis) if isinstance(p, Choice)}
    return choices | {k for name in names_in(axis) for k in keys.get(name, ())}


def _parts(axis: Axis) -> Iterator[Axis]:
    yield axis
    for part in getattr(axis, "parts", ()):
        yield from _parts(part)
