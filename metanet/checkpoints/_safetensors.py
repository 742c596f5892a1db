"""The safetensors format: 8 bytes with the header's length, the header as JSON, the tensors' bytes."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from ._bytes import FileBytes
from ._mapping import Checkpoint
from ._readers import Options, reader

METADATA_KEY = "metanet"  # our metadata is one JSON string under this key: safetensors knows only strings
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


class _Place(NamedTuple):
    """Where a tensor's bytes start in the file, and what they are."""

    start: int
    shape: torch.Size
    dtype: torch.dtype


class _Damaged(ValueError):
    """What is wrong with a header, in a few words."""


class _File:
    """The tensors of one safetensors file."""

    def __init__(self, file: FileBytes, places: dict[str, _Place]) -> None:
        self.file, self.places = file, places

    def __call__(self, name: str) -> Tensor:
        place = self.places[name]
        return self.file.tensor(place.start, place.shape, place.dtype)


@reader("safetensors files (.safetensors)", accepts=lambda path: path.suffix == ".safetensors" and not path.is_dir())
def read(path: Path, options: Options) -> Checkpoint:
    """Open a safetensors file: its header is read and checked, its tensors are not."""
    if options.key is not None:
        raise CheckpointError(f"checkpoint '{path}': key={options.key!r} is for torch files; this has tensors only")
    file = FileBytes(path)
    try:
        header, start = _header(file)
        places = _places(path, header, start, file.size)
        metadata = _strings(header.get("__metadata__", {}))
    except _Damaged as error:
        raise CheckpointError(
            f"checkpoint '{path}' is no whole safetensors file ({error}; {file.size:,} bytes): "
            f"it was cut off while it was written or copied. Restore or remake it."
        ) from error
    return Checkpoint(
        path,
        _File(file, places),
        {name: place.shape for name, place in places.items()},
        {name: place.dtype for name, place in places.items()},
        decode(path, metadata),
    )


def _header(file: FileBytes) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes start."""
    start = file.read(0, 8)
    if len(start) < 8:
        raise _Damaged("its header's length takes 8 bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(MAX_HEADER, file.size - 8):
        raise _Damaged(f"its header should have {length:,} bytes")
    try:
        header = json.loads(file.read(8, length), object_pairs_hook=_distinct)
    except _Damaged:
        raise
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise _Damaged("its header is no JSON object")
    return header, 8 + length


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Damaged(f"{next(name for name in found if names.count(name) > 1)} stands twice in its header")
    return found


def _places(path: Path, header: dict[str, Any], start: int, size: int) -> dict[str, _Place]:
    """Where each tensor stands; together they must cover the file from the header to its end, each byte once."""
    places, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise _Damaged(f"the entry of {name} lacks dtype, shape or two data_offsets") from error
        if not isinstance(shape, list) or not all(_is_size(number) for number in [*shape, begin, end]):
            raise _Damaged(f"the entry of {name} has a shape or offsets that are no sizes")
        if dtype not in DTYPES:
            raise CheckpointError(
                f"checkpoint '{path}': {name} has dtype {dtype}, which metanet doesn't know; known: {', '.join(DTYPES)}"
            )
        needed = math.prod(shape) * DTYPES[dtype].itemsize
        if end - begin != needed:
            raise _Damaged(f"{name} has {end - begin:,} bytes, its shape {shape} of {dtype} takes {needed:,}")
        places[name] = _Place(start + begin, torch.Size(shape), DTYPES[dtype])
        spans.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise _Damaged(f"{name} starts at byte {begin:,} of the data, expected {reached:,}")
        reached = end
    if start + reached != size:
        raise _Damaged(f"its header and tensors take {start + reached:,} bytes")
    return places


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63


def _strings(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Damaged("its metadata are no strings by name")
    return metadata


def decode(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Our own metadata if the file (or index) has it, else what it has."""
    if METADATA_KEY not in metadata:
        return metadata
    try:
        return dict(json.loads(metadata[METADATA_KEY]))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint '{path}': its metadata {METADATA_KEY!r} is no JSON object: {error}"
        ) from error


def encode(
    tensors: Mapping[str, tuple[torch.Size, torch.dtype]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The start of a file, up to the tensors' bytes, and the order in which these have to follow.

    The header keeps the order of the names. The bytes are ordered by width, so that every tensor is aligned for
    programs that map the file.

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
        raise CheckpointError(f"names and metadata take {len(text):,} bytes; safetensors files take {MAX_HEADER:,}")
    return struct.pack("<Q", len(text)) + text, order
