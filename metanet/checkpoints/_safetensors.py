"""The safetensors format: 8 bytes with the header's length, the header as JSON, the tensors'
bytes."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Len, Lt
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from ..documents import Document, parse_json, validated
from ..errors import CheckpointError, MetanetError, brief
from ._bytes import FileBytes, check_size
from ._content import SAFETENSORS
from ._mapping import Checkpoint
from ._readers import ReadOptions, reader

METADATA_KEY = (
    "metanet"  # our metadata is one JSON string under this key: safetensors knows only strings
)
_STRINGS_KEY = "__metadata__"  # where the format has its metadata
MAX_HEADER = 100_000_000  # what safetensors itself takes

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
if hasattr(torch, "float8_e8m0fnu"):  # torch >= 2.7
    DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


_Size = Annotated[int, Ge(0), Lt(2**63)]


class _Place(NamedTuple):
    """Where a tensor's bytes start in the file, and what they are."""

    start: int
    shape: torch.Size
    dtype: torch.dtype


class _Entry(Document):
    """What a header says of a tensor; programs may write more."""

    model_config = ConfigDict(extra="ignore")

    dtype: str
    shape: list[_Size]
    data_offsets: Annotated[list[_Size], Len(2, 2)]


_ENTRIES = TypeAdapter(dict[str, _Entry])
_STRINGS = TypeAdapter(dict[str, str] | None)
_METADATA = TypeAdapter(dict[str, Any])


class _Cut(ValueError):
    """The file ends before what its header announces."""


class _Mistake(MetanetError):
    """A header that is no JSON, or of another form."""


class _Damaged(ValueError):
    """What is wrong with a header, in a few words."""


class _File:
    """The tensors of one safetensors file."""

    def __init__(self, file: FileBytes, places: dict[str, _Place]) -> None:
        self.file, self.places = file, places

    def __call__(self, name: str) -> Tensor:
        place = self.places[name]
        return self.file.tensor(place.start, place.shape, place.dtype)


@reader(
    "safetensors",
    "safetensors files (.safetensors)",
    accepts=lambda path: path.suffix == ".safetensors" and not path.is_dir(),
    kinds=(SAFETENSORS,),
)
def read(path: Path, options: ReadOptions) -> Checkpoint:
    """Open a safetensors file: its header is read and checked, its tensors are not."""
    if options.key is not None:
        raise CheckpointError(
            f"checkpoint '{path}': key={options.key!r} is for torch files; this has tensors only"
        )
    file = FileBytes(path)
    try:
        header, start = _header(file)
        strings = (
            validated(_STRINGS, header.pop(_STRINGS_KEY, {}), "its metadata", error=_Mistake) or {}
        )
        entries = validated(_ENTRIES, header, "its header", error=_Mistake)
        places = _places(path, entries, start, file.size)
    except (_Damaged, _Mistake, _Cut) as error:
        why = (
            "it was cut off while it was written or copied"
            if isinstance(error, _Cut)
            else "it is damaged, or another program wrote it wrongly"
        )
        raise CheckpointError(
            f"checkpoint '{path}' is no whole safetensors file ({error}; {file.size:,} bytes): "
            f"{why}. Restore or remake it."
        ) from error
    return Checkpoint(
        path,
        _File(file, places),
        {name: place.shape for name, place in places.items()},
        {name: place.dtype for name, place in places.items()},
        decode(path, strings),
    )


def _header(file: FileBytes) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes start."""
    start = file.read(0, 8)
    if len(start) < 8:
        raise _Cut("its header's length takes 8 bytes")
    (length,) = struct.unpack("<Q", start)
    if length > file.size - 8:
        raise _Cut(f"its header should have {length:,} bytes")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"checkpoint '{file.path}' is intact, but its header has {length:,} bytes, and "
            f"programs of safetensors, this one too, take {MAX_HEADER:,}. It has too many tensors "
            "for one file: write them to several (save_checkpoint(folder, tensors, "
            "max_shard_size=...)), or stack the small ones into larger tensors."
        )
    header = parse_json(file.read(8, length), "its header", error=_Mistake, unique=True)
    if not isinstance(header, dict):
        raise _Damaged("its header is no JSON object")
    return header, 8 + length


def _places(path: Path, entries: Mapping[str, _Entry], start: int, size: int) -> dict[str, _Place]:
    """Where each tensor stands; together they must cover the file from the header to its end, each
    byte once."""
    places, spans = {}, []
    for name, entry in entries.items():
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"checkpoint '{path}': {brief(name)} has dtype {brief(entry.dtype)}, which metanet "
                f"doesn't know; known: {', '.join(DTYPES)}"
            )
        begin, end = entry.data_offsets
        dtype = DTYPES[entry.dtype]
        needed = math.prod(entry.shape) * dtype.itemsize
        if end - begin != needed:
            raise _Damaged(
                f"{brief(name)} has {end - begin:,} bytes, its shape {brief(entry.shape)} of "
                f"{entry.dtype} takes {brief(f'{needed:,}')}"
            )
        check_size(path, name, entry.shape, dtype, size)
        places[name] = _Place(start + begin, torch.Size(entry.shape), dtype)
        spans.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise _Damaged(
                f"{brief(name)} starts at byte {begin:,} of the data, expected {reached:,}"
            )
        reached = end
    if start + reached != size:
        wrong = _Cut if start + reached > size else _Damaged
        raise wrong(f"its header and tensors take {start + reached:,} bytes")
    return places


def decode(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Our own metadata if the file (or index) has it, else what it has."""
    if METADATA_KEY not in metadata:
        return metadata
    place = f"checkpoint '{path}': its metadata {METADATA_KEY!r}"
    text = validated(TypeAdapter(str), metadata[METADATA_KEY], place, error=CheckpointError)
    # NaN is written there too: a loss that was none is worth knowing.
    content = parse_json(text, place, error=CheckpointError, nan=True)
    return validated(_METADATA, content, place, error=CheckpointError)


def encode(
    tensors: Mapping[str, tuple[torch.Size, torch.dtype]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The start of a file, up to the tensors' bytes, and the order in which these have to follow.

    The header keeps the order of the names. The bytes are ordered by width, so that every tensor is
    aligned for programs that map the file.

    Raises:
        CheckpointError: a name that can't be one, or a header longer than programs take.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    order = sorted(tensors, key=lambda name: -tensors[name][1].itemsize)
    offsets, reached = {}, 0
    for name in order:
        shape, dtype = tensors[name]
        offsets[name] = [reached, reached := reached + shape.numel() * dtype.itemsize]
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    if "__metadata__" in tensors:
        raise CheckpointError("a tensor can't be called __metadata__ in safetensors files")
    for name, (shape, dtype) in tensors.items():
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": offsets[name]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"names and metadata must be text: {error}") from error
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"names and metadata take {len(text):,} bytes; safetensors files take {MAX_HEADER:,}"
        )
    return struct.pack("<Q", len(text)) + text, order
