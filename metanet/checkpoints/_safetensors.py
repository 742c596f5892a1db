"""The safetensors format: reading lazily, writing atomically."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, MetanetError
from ._atomic import atomic_write
from ._mapping import Checkpoint
from ._readers import reader

METADATA_KEY = "metanet"  # our metadata is one JSON string under this key: safetensors knows only strings

_DTYPES = {
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
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_STORABLE = frozenset(_DTYPES.values())


class _File:
    """One open safetensors file; reopens itself in another process."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        self.handle = safe_open(path, framework="pt", device="cpu")

    def __call__(self, name: str) -> Tensor:
        return self.handle.get_tensor(name)

    def __reduce__(self) -> tuple:
        return _File, (self.path,)


@reader("safetensors files (.safetensors)", accepts=lambda path: path.suffix == ".safetensors" and not path.is_dir())
def _read(path: Path) -> Checkpoint:
    from safetensors import SafetensorError

    try:
        file = _File(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint '{path}' is no whole safetensors file ({error}; {path.stat().st_size:,} bytes): "
            f"it was cut off while it was written or copied. Restore or remake it."
        ) from error
    shapes, dtypes = {}, {}
    for name in file.handle.keys():  # noqa: SIM118 - safe_open is no mapping
        entry = file.handle.get_slice(name)
        shapes[name] = torch.Size(entry.get_shape())
        if entry.get_dtype() not in _DTYPES:
            raise CheckpointError(
                f"checkpoint '{path}': {name} has dtype {entry.get_dtype()}, which metanet doesn't know; "
                f"known: {', '.join(_DTYPES)}"
            )
        dtypes[name] = _DTYPES[entry.get_dtype()]
    return Checkpoint(path, file, shapes, dtypes, _decode(path, file.handle.metadata() or {}))


def _decode(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Our own metadata if the file has it, else the strings that it has."""
    if METADATA_KEY not in metadata:
        return metadata
    try:
        return json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise CheckpointError(f"checkpoint '{path}': its metadata {METADATA_KEY!r} is no JSON: {error}") from error


def save_checkpoint(
    path: str | os.PathLike, mapping: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors to a safetensors file, as a whole or not at all.

    Every name gets values of its own: tied tensors (one storage under two names), views, and tensors that aren't
    contiguous are written as independent contiguous copies, so that any program can read any name; what was tied is for
    the architecture to say. Values, shapes and dtypes come back bit for bit; the order of the names does not.

    Args:
        path: the file, ending in ``.safetensors``; missing folders are made, an old file is replaced at the end.
        mapping: tensors by name, on any device; a :class:`Checkpoint` too, even the one at ``path``.
        metadata: JSON-able; comes back as ``load_checkpoint(path).metadata``.

    Raises:
        CheckpointError: another suffix, a value that is no dense tensor with data, a dtype that the format hasn't,
            metadata that is no JSON, or a disk that is full (an old file is still there then).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"can't write '{path}': metanet writes checkpoints as .safetensors")
    # "format" is what other libraries look for before they take a file for PyTorch's.
    header = {"format": "pt"}
    if metadata is not None:
        try:
            header[METADATA_KEY] = json.dumps(metadata)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"can't write '{path}': the metadata is no JSON: {error}") from error
    tensors = _independent(path, mapping)
    size = sum(tensor.nbytes for tensor in tensors.values())
    try:
        with atomic_write(path, size=size) as temporary:
            try:
                save_file(tensors, temporary, metadata=header)
            except SafetensorError as error:
                code = re.search(r"os error (\d+)", str(error))
                if code is None:
                    raise CheckpointError(f"can't write '{path}': {error}") from error
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    except CheckpointError:
        raise
    except (MetanetError, OSError) as error:
        raise CheckpointError(str(error)) from error


def _independent(path: Path, mapping: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, no two of which share memory: what the format can hold."""
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in mapping.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"can't write '{path}': {name!r} is {type(value).__name__}, expected name -> tensor")
        if value.layout is not torch.strided or value.device.type == "meta" or value.dtype not in _STORABLE:
            raise CheckpointError(
                f"can't write '{path}': {name} is a {value.dtype} tensor, {value.layout}, on {value.device}; "
                f"safetensors holds dense tensors with data, of {', '.join(sorted(map(str, _STORABLE)))}"
            )
        tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors
