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
    if not name or not isinstance(axis, Parted):
        return axis
    if isinstance(axis, Choice) and axis.by == name:
        return axis.parts[part]
    parts = [chosen(inner, name, part) for inner in axis.parts]
    return replace(axis, parts=tuple(parts))


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
    # 1 x heads[3] x 2 x 4: heads[3] x 8
    merged: list[Axis] = []
    for part in parts:
        if part.size == 1:
            continue
        last = merged[-1] if merged else None
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
    # 2 | 4 | (a[3] | b[5]): 6 | a[3] | b[5]; with a name, by whose parts a choice goes: as it is
    merged = list(parts)
    if not name:
        nested = [part for part in parts if _is_nested(part)]
        why = next(filter(None, [why, *(part.why for part in nested)]), "")
        merged = _side_by_side(parts)
    return merged[0] if len(merged) == 1 else Concat(tuple(merged), name, why)


def _side_by_side(parts: Sequence[Axis]) -> list[Axis]:
    """Parts of a concatenation, those of the nested ones too; adjacent fixed ones are one."""
    merged: list[Axis] = []
    for part in parts:
        last = merged[-1] if merged else None
        if _is_nested(part):
            merged += part.parts
        elif _is_nameless(part) and _is_nameless(last):
            merged[-1] = Fixed(last.size + part.size, last.reason)
        else:
            merged.append(part)
    return merged


def _is_nested(part: Axis) -> TypeGuard[Concat]:
    """Whether a part of a concatenation is one that nothing goes by."""
    return isinstance(part, Concat) and not part.name


def _is_nameless(part: Axis | None) -> TypeGuard[Fixed]:
    """Whether a part is fixed and no key of anybody."""
    return isinstance(part, Fixed) and not part.group


def axis_to_json(axis: Axis) -> Any:
    """As JSON, which ``_documents.py`` declares and reads.

    ``{"fixed": 3, "why": ""}``, ``{"group": "", "size": 3}``, ``{"product": []}``, and so on.
    """
    match axis:
        case Fixed(size, reason, group):
            return {"fixed": size, "why": reason} | _unless_empty(key=group)
        case Leaf(group, size):
            return {"group": group, "size": size}
        case Product(parts):
            return {"product": list(map(axis_to_json, parts))}
        case Concat(parts, name, why):
            return {"concat": list(map(axis_to_json, parts))} | _unless_empty(name=name, why=why)
        case Choice(by, parts):
            return {"choice": list(map(axis_to_json, parts)), "by": by}


def _unless_empty(**texts: str) -> dict[str, str]:
    return {key: text for key, text in texts.items() if text}
