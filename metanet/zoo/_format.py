"""What the JSON files of a zoo hold: the manifest, the checksum beside a shard, and the header
inside one."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..documents import Document

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
# A name and no path: a file of a zoo lies in its folder, and is none of the hidden ones
FileName = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$", max_length=200)]
_LARGEST_SAMPLE = 2**22  # numbers: examples of this shape are made to trace a network


def _small(shape: list[int]) -> list[int]:
    if math.prod(shape) > _LARGEST_SAMPLE:
        raise ValueError(f"one sample has more than {_LARGEST_SAMPLE:,} numbers")
    return shape


SampleShape = Annotated[
    list[Annotated[int, Field(ge=1, le=_LARGEST_SAMPLE)]],
    Field(max_length=8),
    AfterValidator(_small),
]
"""Of one input of a network, as a file states it."""


class ShardEntry(Document):
    """Beside each shard, written right after it."""

    sha256: Sha256
    bytes: Count
    count: Count


class FileEntry(ShardEntry):
    """The same in the manifest, for tables too, which are of no architecture."""

    architecture: str | None = None


class ArchitectureEntry(Document):
    """How the networks of a population are built."""

    ref: str
    arch_args: dict[str, Any]
    input_shape: SampleShape
    input_range: Annotated[list[float], Field(min_length=2, max_length=2)]


class Manifest(Document):
    """``zoo.json``."""

    format: int
    name: str
    recipe: dict[str, Any]
    made_with: dict[str, str | None]
    architectures: dict[str, ArchitectureEntry]
    columns: dict[str, dict[str, Literal["int", "float", "str"]]]
    files: dict[FileName, FileEntry]
    sha256: str


class ShardHeader(Document):
    """The entry ``zoo`` in the metadata of a shard."""

    order: list[str]
    rows: list[dict[str, int | float | str]]
    curves: list[dict[str, list[float]]]
