"""The files of a symmetry spec: their declared shape, and what must hold between their parts.

A spec is applied to weights. So what it says of a tensor has to be true of a tensor: sizes that
multiply to the shape, groups that there are, elements that can be looked up.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from math import prod
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt, MinLen
from pydantic import Discriminator, Field, Tag

from ..documents import Document
from ..errors import MetanetError, brief
from ._axes import Axis, Choice, Concat, Fixed, Leaf, Product, walk

_LARGEST = 2**48  # entries of a tensor, or numbers of an element of a group
_MANY = 11  # problems of tensors to look for
_DTYPES = frozenset(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))
_KINDS = ("fixed", "group", "product", "concat", "choice")

Size = Annotated[int, Ge(0), Lt(2**48)]
_Name = Annotated[str, MinLen(1)]


class FixedFile(Document):
    fixed: Size
    why: str = ""
    key: str = ""


class LeafFile(Document):
    group: _Name
    size: Size


class ProductFile(Document):
    product: Annotated[list["AxisFile"], MinLen(1)]


class ConcatFile(Document):
    concat: Annotated[list["AxisFile"], MinLen(1)]
    name: str = ""
    why: str = ""


class ChoiceFile(Document):
    choice: Annotated[list["AxisFile"], MinLen(1)]
    by: _Name


def _kind(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return None
    kinds = [kind for kind in _KINDS if kind in value]
    return kinds[0] if kinds else None


AxisFile = Annotated[
    Annotated[FixedFile, Tag("fixed")]
    | Annotated[LeafFile, Tag("group")]
    | Annotated[ProductFile, Tag("product")]
    | Annotated[ConcatFile, Tag("concat")]
    | Annotated[ChoiceFile, Tag("choice")],
    Discriminator(
        _kind,
        custom_error_type="axis",
        custom_error_message=f"Input should have one of {', '.join(_KINDS)}",
    ),
]


class GroupFile(Document):
    name: _Name
    size: Annotated[int, Ge(1), Lt(2**48)]
    keys: list[_Name]
    kind: Literal["permutation", "fixed"]
    also: list[Literal["sign", "scale"]]


class TensorFile(Document):
    shape: list[Size]
    dtype: str
    axes: list[AxisFile]
    tied_to: str | None = Field(...)


class SpecFile(Document):
    """What ``SymmetrySpec.to_json`` makes."""

    groups: list[GroupFile]
    tensors: dict[str, TensorFile]


def axis_of(file: AxisFile) -> Axis:
    """The axis expression that a checked file states."""
    match file:
        case FixedFile():
            return Fixed(file.fixed, file.why, file.key)
        case LeafFile():
            return Leaf(file.group, file.size)
        case ProductFile():
            return Product(tuple(map(axis_of, file.product)))
        case ConcatFile():
            return Concat(tuple(map(axis_of, file.concat)), file.name, file.why)
        case ChoiceFile():
            return Choice(file.by, tuple(map(axis_of, file.choice)))


# ---------------------------------------------------------------- what must hold between the parts


def check_spec(spec: Any, place: str, error: type[MetanetError] = MetanetError) -> None:
    """Refuse a spec whose parts contradict each other.

    Args:
        spec: a ``SymmetrySpec`` as its file states it.
        place: how the message names it.
        error: the class of what is raised.

    Raises:
        MetanetError: lists the first contradictions with the tensor or group.
    """
    problems = list(_of_groups(spec.groups)) or list(islice(_of_tensors(spec), _MANY))
    if problems:
        shown = [brief(problem, 240) for problem in problems[:6]]
        raise error("\n  ".join([f"{place} is damaged: its parts contradict each other:", *shown]))


def _of_groups(groups: tuple[Any, ...]) -> Iterator[str]:
    by_name = {group.name: group for group in groups}
    if len(by_name) < len(groups):
        yield "two groups have one name"
        return
    for group in groups:
        problem = _of_group(group, by_name)
        if problem:
            yield f"group {brief(group.name)} has {problem}"


def _of_group(group: Any, by_name: Mapping[str, Any]) -> str:
    """The first thing that is wrong with a group; nothing if it is sound."""
    unknown = [key for key in group.keys if key not in by_name]
    if unknown:
        return f"the key {brief(unknown[0])}, which is no group"
    has_twice = len(set(group.keys)) < len(group.keys)
    if has_twice or _reaches_itself(group.name, by_name):
        return "a key twice, or itself among its keys"
    sizes = [by_name[key].size for key in group.keys]
    if prod(sizes) * group.size >= _LARGEST:
        return f"elements of more than {_LARGEST:,} numbers"
    return ""


def _reaches_itself(name: str, by_name: Mapping[str, Any]) -> bool:
    waiting = list(by_name[name].keys)
    seen: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key == name:
            return True
        if key in by_name and key not in seen:
            seen.add(key)
            waiting += by_name[key].keys
    return False


def _of_tensors(spec: Any) -> Iterator[str]:
    for name, tensor in spec.tensors.items():
        problems = chain(_of_shape(tensor), _of_ties(spec, name, tensor), _of_axes(spec, tensor))
        for problem in problems:
            yield f"tensor {brief(name)}: {problem}"


def _of_shape(tensor: Any) -> Iterator[str]:
    sizes = [axis.size for axis in tensor.axes]
    if tensor.dtype not in _DTYPES:
        yield f"torch has no dtype {brief(tensor.dtype)}"
    # an axis of size 0 does not make the others small
    entries = prod(max(1, n) for n in tensor.shape)
    if entries >= _LARGEST:
        yield f"its shape {brief(tensor.shape)} has more than {_LARGEST:,} entries"
    if sizes != list(tensor.shape):
        yield f"its axes have sizes {brief(sizes)}, its shape is {brief(tensor.shape)}"


def _of_ties(spec: Any, name: str, tensor: Any) -> Iterator[str]:
    if tensor.tied_to is None:
        return
    first = spec.tensors.get(tensor.tied_to)
    if tensor.tied_to == name or first is None:
        yield f"it is tied to {brief(tensor.tied_to)}, which is no other tensor"
    elif first.shape != tensor.shape:
        yield f"it is tied to {brief(tensor.tied_to)}, which has another shape"


def _of_axes(spec: Any, tensor: Any) -> Iterator[str]:
    parts: list[Axis] = []
    for axis in tensor.axes:
        parts += walk(axis)
    concats = {part.name: part for part in parts if isinstance(part, Concat)}
    for part in parts:
        if isinstance(part, Choice):
            yield from _of_choice(part, concats.get(part.by))
        elif isinstance(part, (Leaf, Fixed)) and part.group:
            yield from _of_named(part, spec.by_name.get(part.group))
    yield from _of_keys(parts, spec.by_name)


def _of_keys(parts: list[Axis], by_name: Mapping[str, Any]) -> Iterator[str]:
    # dims that have one arrangement per head: the tensor must have an axis of heads
    present = {part.group for part in parts if isinstance(part, (Leaf, Fixed))}
    moving = dict.fromkeys(part.group for part in parts if isinstance(part, Leaf))
    for name in moving:
        group = by_name.get(name)
        if group is None:  # which _of_named reports
            continue
        lacking = [key for key in group.keys if key not in present]
        if lacking:
            yield f"the elements of {brief(name)} go by {brief(lacking[0])}, which is none of its axes"


def _of_named(part: Leaf | Fixed, group: Any) -> Iterator[str]:
    if group is None:
        yield f"there is no group {brief(part.group)}"
    elif group.size != part.size:
        yield f"group {brief(part.group)} has {group.size} items, here {part.size}"
    elif isinstance(part, Leaf) and group.kind != "permutation":
        yield f"group {brief(part.group)} is fixed, here it moves"


def _of_choice(choice: Choice, concat: Concat | None) -> Iterator[str]:
    count = len(choice.parts)
    sizes = {part.size for part in choice.parts}
    if len(sizes) > 1:
        yield f"the choice by {brief(choice.by)} has parts of several sizes"
    if concat is None or len(concat.parts) != count:
        yield f"the choice by {brief(choice.by)} has no concatenation of {count} parts to go by"
