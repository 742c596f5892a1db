"""Torch files with foreign objects: the tensors are read, the objects stay placeholders, no code
runs."""

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, brief
from ._archive import Archive, Refused, is_compressed, open_archive
from ._bytes import ZIP_ERRORS, FileBytes, budget, check_size, sound_bools
from ._content import TORCH, TORCHSCRIPT, kind_of
from ._inert_pickle import QUANTISED, Inert, Storage, Stored, unpickle
from ._mapping import Checkpoint
from ._state_dicts import find_state_dict

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what files of the older format start with
_DEEPEST, _MOST = (
    100,
    100_000,
)  # modules inside modules, and all of them: a pickle may hold itself, or one twice


class _Place(NamedTuple):
    """Where a tensor's values are: ``span`` values from byte ``start`` of the file on, of which it
    is a view.

    In a compressed file they start so far within ``record``.
    """

    record: str | None
    start: int
    span: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    conj: bool
    neg: bool


class _File:
    """The tensors of one torch file, by what its pickle said of them."""

    def __init__(self, file: FileBytes, archive: Archive | None, places: dict[str, _Place]) -> None:
        self.file, self.archive, self.places = file, archive, places
        self._inflated: tuple[str, bytes] = (
            "",
            b"",
        )  # the last record that was: many tensors may be views of it

    def __call__(self, name: str) -> Tensor:
        place = self.places[name]
        tensor = self._values(place).as_strided(place.shape, place.stride).contiguous()
        tensor = tensor.conj_physical() if place.conj else tensor
        return tensor.neg() if place.neg else tensor

    def _values(self, place: _Place) -> Tensor:
        if place.record is None:
            return self.file.tensor(place.start, (place.span,), place.dtype)
        if self._inflated[0] != place.record:
            self.file.check()
            self._inflated = place.record, self._inflate(place.record)
        end = place.start + place.span * place.dtype.itemsize
        part = bytearray(self._inflated[1][place.start : end])
        return sound_bools(torch.frombuffer(part, dtype=torch.uint8).view(place.dtype))

    def _inflate(self, record: str) -> bytes:
        if self.archive is None:
            raise CheckpointError(f"checkpoint '{self.file.path}' has no records")
        try:
            return self.archive.read(record)
        except ZIP_ERRORS as error:
            raise CheckpointError(
                f"checkpoint '{self.file.path}': its record {brief(record)} is damaged "
                f"({brief(error)})"
            ) from error

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_inflated": ("", b"")}


def read_inert(path: Path, key: str | None) -> Checkpoint:
    """Open a torch file of either format without importing, calling or building anything that it
    names.

    Args:
        key: the entry to take; see :func:`load_checkpoint`.

    Raises:
        CheckpointError: no torch file, a damaged one, or tensors that the file does not contain.
    """
    file = FileBytes(path)
    foreign: dict[str, type[Inert]] = {}
    try:
        archive = open_archive(file) if kind_of(path) in (TORCH, TORCHSCRIPT) else None
        content, first = _older(file, foreign) if archive is None else _zip(archive, foreign)
        state = find_state_dict(path, content, key, lambda value: isinstance(value, Stored), _view)
        stored = {
            name: value
            for name, value in state.items()
            if isinstance(name, str) and isinstance(value, Stored)
        }
        places = {name: _place(name, value, first, file.size) for name, value in stored.items()}
        for name, place in places.items():
            check_size(path, name, place.shape, place.dtype, file.size)
    except (OSError, CheckpointError):
        raise
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        raise CheckpointError(
            f"checkpoint '{path}' is damaged, cut off, or was not written by torch.save "
            f"({type(error).__name__}: {brief(error, 300)}). Restore or remake it."
        ) from error
    return Checkpoint(
        path,
        _File(file, archive if archive is not None and archive.compressed else None, places),
        {name: place.shape for name, place in places.items()},
        {name: place.dtype for name, place in places.items()},
        skipped=(str(name) for name in state if name not in places),
        foreign=sorted(foreign),
    )


# Gives the record in which a storage is, if it is compressed, the byte at which it starts, and how
# many bytes it has.
_First = Callable[[Storage], tuple[str | None, int, int]]


def _zip(archive: Archive, foreign: dict[str, type[Inert]]) -> tuple[Any, _First]:
    """The zip format: ``name/data.pkl``, and a record ``name/data/KEY`` for each storage."""
    content, _, _ = unpickle(archive.read("data.pkl"), 0, foreign, budget(archive.file.size))
    if "byteorder" in archive.records and archive.read("byteorder") != b"little":
        raise Refused("its numbers are not little-endian")

    def first(storage: Storage) -> tuple[str | None, int, int]:
        name = f"data/{storage.key}"
        record = archive.record(name)
        if is_compressed(record):
            return name, 0, record.file_size
        return None, archive.start(name), record.file_size

    return content, first


def _older(file: FileBytes, foreign: dict[str, type[Inert]]) -> tuple[Any, _First]:
    """The older format: five pickles (two numbers, facts of the machine, the content, the storages'
    keys), then data.

    Each storage is its number of values in 8 bytes, then the values.
    """
    with file.mapped() as data:
        parts, start = [], 0
        for kinds in ({}, {}, {}, foreign, {}):
            value, start, _ = unpickle(data, start, kinds, budget(file.size))
            parts.append(value)
            if len(parts) == 2 and parts != [_MAGIC, _PROTOCOL]:
                raise Refused("its first bytes are those of another format")
    _, _, system, content, keys = parts
    if not system.get("little_endian", True):
        raise Refused("its numbers are not little-endian")
    # The widths of the values are with the tensors; storages without one can't be skipped over.
    widths = {stored.storage.key: stored.storage.dtype.itemsize for stored in _tensors(content)}
    spans: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key not in widths:
            raise Refused(f"nothing says of what dtype its storage {brief(key)} is")
        head = file.read(start, 8)
        if len(head) < 8:
            raise Refused("it ends before its last storage")
        (count,) = struct.unpack("<q", head)
        if count < 0:
            raise Refused(f"its storage {brief(key)} has {count:,} values")
        spans[key] = (start + 8, count * widths[key])
        start += 8 + count * widths[key]
    return content, lambda storage: (None, *spans[storage.key])


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
    if (
        not isinstance(storage, Storage)
        or not isinstance(dtype, torch.dtype)
        or len(shape) != len(stride)
    ):
        raise Refused(f"{brief(name)} is no tensor of this file")
    if dtype in QUANTISED:
        raise Refused(f"{brief(name)} is quantised ({dtype})")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise Refused(f"{brief(name)} has a shape or strides that are no sizes")
    shape = torch.Size(shape)
    span = (
        1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if 0 not in shape
        else 0
    )
    record, start, length = first(storage) if span else (None, 0, 0)
    skip = storage.start * storage.dtype.itemsize + offset * dtype.itemsize
    end = skip + span * dtype.itemsize
    if span and (end > length or (record is None and start + length > size) or storage.start < 0):
        raise Refused(f"{brief(name)} ends at byte {end:,} of a storage of {length:,}")
    flags = flags if isinstance(flags, dict) else {}
    conj, neg = bool(flags.get("conj")), bool(flags.get("neg"))
    return _Place(record, start + skip, span, dtype, shape, tuple(stride), conj, neg)


def _view(value: Any) -> Any:
    """The mapping that a placeholder stands for: a module's state dict, a foreign dict's entries,
    an object's state."""
    if not isinstance(value, Inert):
        return value
    state = value.state
    if isinstance(state, Mapping) and isinstance(state.get("_modules"), Mapping):
        return dict(_module(state))
    if value.items:
        return value.items
    return state if isinstance(state, Mapping) else value


def _module(state: Mapping) -> Iterator[tuple[str, Any]]:
    """Parameters and persistent buffers of a pickled ``nn.Module``, by the names of its state
    dict."""
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
    raise Refused("its modules stand in one another without end")
