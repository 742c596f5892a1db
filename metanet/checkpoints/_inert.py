"""Torch files with foreign objects: the tensors are read, the objects stay placeholders, no code runs."""

import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from ._bytes import FileBytes
from ._inert_pickle import Inert, Storage, Stored, unpickle
from ._mapping import Checkpoint
from ._state_dicts import find_state_dict

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what files of the older format start with
_DEEPEST, _MOST = 100, 100_000  # modules inside modules, and all of them: a pickle may hold itself, or one twice


class _Place(NamedTuple):
    """Where a tensor's values are: ``span`` values from byte ``start`` on, of which it is a view."""

    start: int
    span: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    conj: bool
    neg: bool


class _Refused(ValueError):
    """What is wrong with a file, in a few words."""


class _File:
    """The tensors of one torch file, by what its pickle said of them."""

    def __init__(self, file: FileBytes, places: dict[str, _Place]) -> None:
        self.file, self.places = file, places

    def __call__(self, name: str) -> Tensor:
        place = self.places[name]
        tensor = self.file.tensor(place.start, (place.span,), place.dtype)
        tensor = tensor.as_strided(place.shape, place.stride).contiguous()
        tensor = tensor.conj_physical() if place.conj else tensor
        return tensor.neg() if place.neg else tensor


def read_inert(path: Path, key: str | None) -> Checkpoint:
    """Open a torch file of either format without importing, calling or building anything that it names.

    Args:
        key: the entry to take; see :func:`load_checkpoint`.

    Raises:
        CheckpointError: no torch file, a damaged one, or tensors that the file does not contain.
    """
    file = FileBytes(path)
    foreign: dict[str, type[Inert]] = {}
    try:
        content, first = (_zip if zipfile.is_zipfile(path) else _older)(file, foreign)
        state = find_state_dict(path, content, key, lambda value: isinstance(value, Stored), _view)
        found = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Stored)}
        places = {name: _place(name, value, first, file.size) for name, value in found.items()}
    except (OSError, CheckpointError):
        raise
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything (KeyError, EOFError, ...)
        raise CheckpointError(
            f"checkpoint '{path}' is damaged, cut off, or was not written by torch.save "
            f"({type(error).__name__.strip('_')}: {str(error)[:200]}). Restore or remake it."
        ) from error
    return Checkpoint(
        path,
        _File(file, places),
        {name: place.shape for name, place in places.items()},
        {name: place.dtype for name, place in places.items()},
        skipped=(str(name) for name in state if name not in places),
        foreign=sorted(foreign),
    )


# Gives the byte at which a storage starts, and how many bytes it has.
_First = Callable[[Storage], tuple[int, int]]


def _zip(file: FileBytes, foreign: dict[str, type[Inert]]) -> tuple[Any, _First]:
    """The zip format: ``name/data.pkl``, and a record ``name/data/KEY`` for each storage, not compressed."""
    with zipfile.ZipFile(file.place) as archive:
        records = {record.filename: record for record in archive.infolist()}
        names = [name for name in records if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(names) != 1:
            raise _Refused("it has no data.pkl")
        folder = names[0].partition("/")[0]
        if any(name.startswith(f"{folder}/code/") for name in records):
            raise CheckpointError(
                f"checkpoint '{file.path}' is a TorchScript archive: "
                f"load it with torch.jit.load and save its state_dict()"
            )
        _check_stored(records[names[0]])
        content = unpickle(io.BytesIO(archive.read(names[0])), foreign)
        order = records.get(f"{folder}/byteorder")
        if order is not None and archive.read(order) != b"little":
            raise _Refused("its numbers are not little-endian")

    def first(storage: Storage) -> tuple[int, int]:
        name = f"{folder}/data/{storage.key}"
        if name not in records:
            raise _Refused(f"it lacks the record {name}")
        record = records[name]
        _check_stored(record)
        lengths = struct.unpack("<HH", file.read(record.header_offset + 26, 4))  # of the name and of the extra field
        return record.header_offset + 30 + sum(lengths), record.file_size

    return content, first


def _check_stored(record: zipfile.ZipInfo) -> None:
    if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
        raise _Refused(f"its record {record.filename} is compressed")


def _older(file: FileBytes, foreign: dict[str, type[Inert]]) -> tuple[Any, _First]:
    """The older format: five pickles (two numbers, facts of the machine, the content, the storages' keys), then data.

    Each storage is its number of values in 8 bytes, then the values.
    """
    with file.place.open("rb") as stream:
        if unpickle(stream, {}) != _MAGIC or unpickle(stream, {}) != _PROTOCOL:
            raise _Refused("its first bytes are those of another format")
        if not unpickle(stream, {}).get("little_endian", True):
            raise _Refused("its numbers are not little-endian")
        content = unpickle(stream, foreign)
        keys = unpickle(stream, {})
        start = stream.tell()
    # The widths of the values are with the tensors; storages without one can't be skipped over.
    widths = {stored.storage.key: stored.storage.dtype.itemsize for stored in _tensors(content)}
    spans: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key not in widths:
            raise _Refused(f"nothing says of what dtype its storage {key} is")
        head = file.read(start, 8)
        if len(head) < 8:
            raise _Refused("it ends before its last storage")
        size = struct.unpack("<q", head)[0] * widths[key]
        spans[key] = (start + 8, size)
        start += 8 + size
    return content, lambda storage: spans[storage.key]


def _tensors(content: Any) -> Iterator[Stored]:
    """All tensors anywhere in what a pickle held, foreign objects included."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        match value:
            case Stored(storage=Storage()):
                yield value
            case Inert():
                waiting += [*value.args, *value.items.values(), value.state]
            case Mapping():
                waiting += [*value.keys(), *value.values(), getattr(value, "__dict__", None)]
            case list() | tuple() | set() | frozenset():
                waiting += value


def _place(name: str, tensor: Stored, first: _First, size: int) -> _Place:
    """Where a tensor is, if it is what it says and inside its storage."""
    storage, dtype, offset, shape, stride, flags = tensor
    numbers = [offset, *shape, *stride]
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype) or len(shape) != len(stride):
        raise _Refused(f"{name} is no tensor of this file")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise _Refused(f"{name} has a shape or strides that are no sizes")
    shape = torch.Size(shape)
    span = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if 0 not in shape else 0
    start, length = first(storage) if span else (0, 0)
    skip = storage.start * storage.dtype.itemsize + offset * dtype.itemsize
    end = skip + span * dtype.itemsize
    if span and (end > length or start + length > size or storage.start < 0):
        raise _Refused(f"{name} ends at byte {end:,} of a storage of {length:,}")
    flags = flags if isinstance(flags, dict) else {}
    return _Place(start + skip, span, dtype, shape, tuple(stride), bool(flags.get("conj")), bool(flags.get("neg")))


def _view(value: Any) -> Any:
    """The mapping that a placeholder stands for: a module's state dict, a foreign dict's entries, an object's state."""
    if not isinstance(value, Inert):
        return value
    state = value.state
    if isinstance(state, Mapping) and isinstance(state.get("_modules"), Mapping):
        return dict(_module(state))
    if value.items:
        return value.items
    return state if isinstance(state, Mapping) else value


def _module(state: Mapping) -> Iterator[tuple[str, Any]]:
    """Parameters and persistent buffers of a pickled ``nn.Module``, by the names of its state dict."""
    waiting = [("", state, 0)]
    for _ in range(_MOST):
        if not waiting:
            return
        prefix, state, depth = waiting.pop()
        hidden = state.get("_non_persistent_buffers_set", ())
        if isinstance(hidden, Inert):  # a set, made by a call with its items
            hidden = hidden.args[0] if hidden.args else ()
        for kind in ("_parameters", "_buffers"):
            for name, value in state.get(kind, {}).items():
                if isinstance(value, Stored) and not (kind == "_buffers" and name in hidden):
                    yield f"{prefix}{name}", value
        inside = [
            (f"{prefix}{name}.", child.state, depth + 1)
            for name, child in state.get("_modules", {}).items()
            if isinstance(child, Inert) and isinstance(child.state, Mapping)
        ]
        if inside and depth == _DEEPEST:
            break
        waiting += reversed(inside)
    raise _Refused("its modules stand in one another without end")
