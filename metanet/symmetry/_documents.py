"""The files of a symmetry spec: their declared shape, and what must hold between their parts.

A spec is applied to weights. So what it says of a tensor has to be true of a tensor: sizes that
multiply to the shape, groups that there are, elements that can be looked up.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt, MinLen
from pydantic import Discriminator, Field, Tag

from ..documents import Document
from ..errors import MetanetError, brief
from ._axes import Axis, Choice, Concat, Fixed, Leaf, Product, leaves_of

_LARGEST = 2**48  # entries of a tensor, or numbers of an element of a group
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
    return next((kind for kind in _KINDS if isinstance(value, Mapping) and kind in value), None)


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
    problems = [*_of_groups(spec.groups)]
    if not problems:
        for name, tensor in spec.tensors.items():
            problems += (f"tensor {brief(name)}: {what}" for what in _of_tensor(spec, name, tensor))
            if len(problems) > 10:
                break
    if problems:
        shown = [brief(problem, 240) for problem in problems[:6]]
        raise error("\n  ".join([f"{place} is damaged: its parts contradict each other:", *shown]))


def _of_groups(groups: tuple[Any, ...]) -> Iterator[str]:
    by_name = {group.name: group for group in groups}
    if len(by_name) < len(groups):
        yield "two groups have one name"
        return
    for group in groups:
        own = f"group {brief(group.name)}"
        if unknown := [key for key in group.keys if key not in by_name]:
            yield f"{own} has the key {brief(unknown[0])}, which is no group"
        elif len(set(group.keys)) < len(group.keys) or _reaches_itself(group.name, by_name):
            yield f"{own} has a key twice, or itself among its keys"
        elif prod(by_name[key].size for key in group.keys) * group.size >= _LARGEST:
            yield f"{own} has elements of more than {_LARGEST:,} numbers"


def _reaches_itself(name: str, by_name: Mapping[str, Any]) -> bool:
    waiting, seen = list(by_name[name].keys), set()
    while waiting:
        key = waiting.pop()
        if key == name:
            return True
        if key in by_name and key not in seen:
            seen.add(key)
            waiting += by_name[key].keys
    return False


def _of_tensor(spec: Any, name: str, tensor: Any) -> Iterator[str]:
    sizes = [axis.size for axis in tensor.axes]
    if tensor.dtype not in _DTYPES:
        yield f"torch has no dtype {brief(tensor.dtype)}"
    if prod(max(1, n) for n in tensor.shape) >= _LARGEST:
        yield f"its shape {brief(tensor.shape)} has more than {_LARGEST:,} entries"
    if sizes != list(tensor.shape):
        yield f"its axes have sizes {brief(sizes)}, its shape is {brief(tensor.shape)}"
    first = spec.tensors.get(tensor.tied_to) if tensor.tied_to is not None else None
    if tensor.tied_to == name or (tensor.tied_to is not None and first is None):
        yield f"it is tied to {brief(tensor.tied_to)}, which is no other tensor"
    elif first is not None and first.shape != tensor.shape:
        yield f"it is tied to {brief(tensor.tied_to)}, which has another shape"
    concats = {
        part.name: part for axis in tensor.axes for part in _parts(axis) if isinstance(part, Concat)
    }
    for axis in tensor.axes:
        for part in _parts(axis):
            yield from _of_part(spec, part, concats)
    named = {
        part.group
        for axis in tensor.axes
        for part in _parts(axis)
        if isinstance(part, (Leaf, Fixed))
    }
    for group in dict.fromkeys(leaf.group for axis in tensor.axes for leaf in leaves_of(axis)):
        if (
            lacking := [key for key in spec.by_name[group].keys if key not in named]
            if group in spec.by_name
            else []
        ):
            yield f"the elements of {brief(group)} go by {brief(lacking[0])}, which is none of its axes"


def _of_part(spec: Any, part: Axis, concats: Mapping[str, Concat]) -> Iterator[str]:
    match part:
        case Leaf(group, size) | Fixed(size, _, group) if group:
            known = spec.by_name.get(group)
            if known is None:
                yield f"there is no group {brief(group)}"
            elif known.size != size:
                yield f"group {brief(group)} has {known.size} items, here {size}"
            elif isinstance(part, Leaf) and known.kind != "permutation":
                yield f"group {brief(group)} is fixed, here it moves"
        case Choice(by, parts):
            if len({each.size for each in parts}) > 1:
                yield f"the choice by {brief(by)} has parts of several sizes"
            if by not in concats or len(concats[by].parts) != len(parts):
                yield f"the choice by {brief(by)} has no concatenation of {len(parts)} parts to go by"


def _parts(axis: Axis) -> Iterator[Axis]:
    """An axis expression and all that it is made of."""
    yield axis
    if isinstance(axis, (Product, Concat, Choice)):
        for part in axis.parts:
            yield from _parts(part)
