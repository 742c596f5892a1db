"""Axis expressions: how one axis of a tensor is made of groups of neurons and fixed parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class Fixed:
    """Items that keep their place, and why; ``group`` names them when the elements of other groups
    depend on them."""

    size: int
    reason: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"{self.group}[{self.size}, fixed]" if self.group else str(self.size)


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
    """One part behind the other; it has a name if a :class:`Choice` elsewhere in the tensor goes by
    it.

    ``why`` says what cuts the axis, where operations divide the same items in different ways.
    """

    parts: tuple["Axis", ...]
    name: str = ""
    why: str = ""

    @property
    def size(self) -> int:
        return sum(p.size for p in self.parts)

    def __str__(self) -> str:
        return (f"{self.name}:" if self.name else "") + "(" + " | ".join(map(str, self.parts)) + ")"


@dataclass(frozen=True, slots=True)
class Choice:
    """Part i where the concatenation named ``by``, of the same tensor, is in its part i; all parts
    have one size.

    A fused projection whose rows for queries read another stream than those for keys and values has
    one as its columns.
    """

    by: str
    parts: tuple["Axis", ...]

    @property
    def size(self) -> int:
        return self.parts[0].size

    def __str__(self) -> str:
        return f"{self.by}?(" + " / ".join(map(str, self.parts)) + ")"


Axis = Fixed | Leaf | Product | Concat | Choice


def axis_product(parts: Sequence[Axis]) -> Axis:
    """The product of parts, without needless nesting; adjacent fixed parts become one."""
    merged: list[Axis] = []
    for part in parts:
        if part.size == 1:
            continue
        last = merged[-1] if merged else None
        if isinstance(part, Fixed) and isinstance(last, Fixed) and not (part.group or last.group):
            merged[-1] = Fixed(last.size * part.size, last.reason)
        else:
            merged.append(part)
    if not merged:
        return Fixed(1, "a single item")
    return merged[0] if len(merged) == 1 else Product(tuple(merged))


def axis_concat(parts: Sequence[Axis], name: str = "", why: str = "") -> Axis:
    """The concatenation of parts, without needless nesting; adjacent fixed parts become one unless
    it has a name."""
    merged: list[Axis] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Concat) and not part.name and not name:
            merged += part.parts
            why = why or part.why
        elif (
            isinstance(part, Fixed)
            and isinstance(last, Fixed)
            and not (part.group or last.group or name)
        ):
            merged[-1] = Fixed(last.size + part.size, last.reason)
        else:
            merged.append(part)
    return merged[0] if len(merged) == 1 else Concat(tuple(merged), name, why)


def leaves_of(axis: Axis) -> Iterator[Leaf]:
    """Every leaf of an axis, in order: what may move along it."""
    if isinstance(axis, Leaf):
        yield axis
    elif isinstance(axis, (Product, Concat, Choice)):
        for part in axis.parts:
            yield from leaves_of(part)


def fixed_of(axis: Axis) -> Iterator[Fixed]:
    """Every fixed part of an axis, in order."""
    if isinstance(axis, Fixed):
        yield axis
    elif isinstance(axis, (Product, Concat, Choice)):
        for part in axis.parts:
            yield from fixed_of(part)


def concats_of(axis: Axis) -> Iterator[Concat]:
    """Every concatenation of an axis, in order."""
    if isinstance(axis, Concat):
        yield axis
    for part in getattr(axis, "parts", ()):
        yield from concats_of(part)


def chosen(axis: Axis, name: str, part: int) -> Axis:
    """The axis where the concatenation of this name is in the given part."""
    match axis:
        case Choice(by, parts) if name and by == name:
            return parts[part]
        case Product(parts):
            return Product(tuple(chosen(p, name, part) for p in parts))
        case Concat(parts, own):
            return Concat(tuple(chosen(p, name, part) for p in parts), own)
        case Choice(by, parts):
            return Choice(by, tuple(chosen(p, name, part) for p in parts))
    return axis


def axis_to_json(axis: Axis) -> Any:
    """As JSON, which ``_documents.py`` declares and reads.

    ``{"fixed": 3, "why": ""}``, ``{"group": "", "size": 3}``, ``{"product": []}``, and so on.
    """
    match axis:
        case Fixed(size, reason, group):
            return {"fixed": size, "why": reason} | ({"key": group} if group else {})
        case Leaf(group, size):
            return {"group": group, "size": size}
        case Product(parts):
            return {"product": [axis_to_json(p) for p in parts]}
        case Concat(parts, name, why):
            named = {"name": name} if name else {}
            return (
                {"concat": [axis_to_json(p) for p in parts]} | named | ({"why": why} if why else {})
            )
        case Choice(by, parts):
            return {"choice": [axis_to_json(p) for p in parts], "by": by}
