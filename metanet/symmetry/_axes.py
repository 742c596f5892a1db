"""Axis expressions: how one axis of a tensor is made of groups of neurons and fixed parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..errors import MetanetError


@dataclass(frozen=True, slots=True)
class Fixed:
    """Items that keep their place, and why."""

    size: int
    reason: str = ""

    def __str__(self) -> str:
        return str(self.size)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The items of a group."""

    group: str
    size: int

    def __str__(self) -> str:
        return f"{self.group}[{self.size}]"


@dataclass(frozen=True, slots=True)
class Product:
    """A row-major product: the last part runs fastest."""

    parts: tuple["Axis", ...]

    @property
    def size(self) -> int:
        return prod(p.size for p in self.parts)

    def __str__(self) -> str:
        return "(" + " x ".join(map(str, self.parts)) + ")"


@dataclass(frozen=True, slots=True)
class Concat:
    """One part behind the other."""

    parts: tuple["Axis", ...]

    @property
    def size(self) -> int:
        return sum(p.size for p in self.parts)

    def __str__(self) -> str:
        return "(" + " | ".join(map(str, self.parts)) + ")"


Axis = Fixed | Leaf | Product | Concat


def axis_product(parts: Sequence[Axis]) -> Axis:
    """The product of parts, without needless nesting; adjacent fixed parts become one."""
    merged: list[Axis] = []
    for part in parts:
        if part.size == 1:
            continue
        if isinstance(part, Fixed) and merged and isinstance(merged[-1], Fixed):
            merged[-1] = Fixed(merged[-1].size * part.size, merged[-1].reason)
        else:
            merged.append(part)
    if not merged:
        return Fixed(1, "a single item")
    return merged[0] if len(merged) == 1 else Product(tuple(merged))


def leaves_of(axis: Axis) -> Iterator[Leaf]:
    """Every leaf of an axis, in order."""
    if isinstance(axis, Leaf):
        yield axis
    elif isinstance(axis, (Product, Concat)):
        for part in axis.parts:
            yield from leaves_of(part)


def axis_to_json(axis: Axis) -> Any:
    """As JSON: ``{"fixed": 3, "why": ""}``, ``{"group": "", "size": 3}``, ``{"product": []}``, ``{"concat": []}``."""
    match axis:
        case Fixed(size, reason):
            return {"fixed": size, "why": reason}
        case Leaf(group, size):
            return {"group": group, "size": size}
        case Product(parts):
            return {"product": [axis_to_json(p) for p in parts]}
        case Concat(parts):
            return {"concat": [axis_to_json(p) for p in parts]}


def axis_from_json(data: Any) -> Axis:
    """The inverse of :func:`axis_to_json`.

    Raises:
        MetanetError: the data is no axis expression.
    """
    match data:
        case {"fixed": int(size)}:
            return Fixed(size, data.get("why", ""))
        case {"group": str(group), "size": int(size)}:
            return Leaf(group, size)
        case {"product": list(parts)}:
            return Product(tuple(map(axis_from_json, parts)))
        case {"concat": list(parts)}:
            return Concat(tuple(map(axis_from_json, parts)))
    raise MetanetError(f"not an axis expression: {data!r}")
