"""Axis expressions: how one axis of a tensor is made of groups of neurons and fixed parts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeGuard


@dataclass(frozen=True, slots=True)
class Fixed:
    """Items that keep their place, and why.

    ``group`` names them when the elements of other groups depend on them.
    """

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
    """One part behind the other.

    It has a name if a :class:`Choice` elsewhere in the tensor goes by it.

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
    """Part i where a concatenation is in its part i.

    The concatenation is the one named ``by`` of the same tensor; all parts have one size.

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
"""How one axis of a tensor is made."""
Parted = Product | Concat | Choice


# ---------------------------------------------------------------- all parts of an axis


def walk(axis: Axis) -> Iterator[Axis]:
    """An axis and all that it is made of, each before its parts.

    >>> print(*walk(Product((Leaf("heads", 3), Fixed(2)))), sep="; ")
    (heads[3] x 2); heads[3]; 2
    """
    yield axis
    if isinstance(axis, Parted):
        for part in axis.parts:
            yield from walk(part)


def mapped(axis: Axis, change: Callable[[Leaf | Fixed], Axis]) -> Axis:
    """The axis with its leaves and fixed parts changed."""
    if isinstance(axis, Parted):
        return replace(axis, parts=tuple(mapped(part, change) for part in axis.parts))
    return change(axis)


def chosen(axis: Axis, name: str, part: int) -> Axis:
    """The axis where the concatenation of this name is in the given part."""
    if not isinstance(axis, Parted):
        return axis
    if isinstance(axis, Choice) and axis.by == name and name:
        return axis.parts[part]
    return replace(axis, parts=tuple(chosen(inner, name, part) for inner in axis.parts))


def leaves_of(axis: Axis) -> Iterator[Leaf]:
    """Every leaf of an axis, in order: what may move along it."""
    return (part for part in walk(axis) if isinstance(part, Leaf))


def fixed_of(axis: Axis) -> Iterator[Fixed]:
    """Every fixed part of an axis, in order."""
    return (part for part in walk(axis) if isinstance(part, Fixed))


def concats_of(axis: Axis) -> Iterator[Concat]:
    """Every concatenation of an axis, in order."""
    return (part for part in walk(axis) if isinstance(part, Concat))


# ---------------------------------------------------------------- putting parts together


def axis_product(parts: Sequence[Axis]) -> Axis:
    """The product of parts, without needless nesting; adjacent fixed parts become one."""
    merged: list[Axis] = []
    for part in parts:
        last = merged[-1] if merged else None
        if part.size == 1:
            continue
        if _is_nameless(part) and _is_nameless(last):
            merged[-1] = Fixed(last.size * part.size, last.reason)
        else:
            merged.append(part)
    if not merged:
        return Fixed(1, "a single item")
    return merged[0] if len(merged) == 1 else Product(tuple(merged))


def axis_concat(parts: Sequence[Axis], name: str = "", why: str = "") -> Axis:
    """The concatenation of parts, without needless nesting; adjacent fixed parts become one unless
    it has a name."""
    if name:  # a choice goes by its parts: they stay as they are
        return parts[0] if len(parts) == 1 else Concat(tuple(parts), name, why)
    merged: list[Axis] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Concat) and not part.name:
            merged += part.parts
            why = why or part.why
        elif _is_nameless(part) and _is_nameless(last):
            merged[-1] = Fixed(last.size + part.size, last.reason)
        else:
            merged.append(part)
    return merged[0] if len(merged) == 1 else Concat(tuple(merged), "", why)


def _is_nameless(part: Axis | None) -> TypeGuard[Fixed]:
    """Whether a part is fixed and no key of anybody."""
    return isinstance(part, Fixed) and not part.group


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
            cut_by = {"why": why} if why else {}
            return {"concat": [axis_to_json(p) for p in parts]} | named | cut_by
        case Choice(by, parts):
            return {"choice": [axis_to_json(p) for p in parts], "by": by}
