"""Folders of ``torch.distributed.checkpoint`` (DCP): FSDP, torchtitan, Lightning's and Accelerate's
sharded saving.

``.metadata`` is a pickle that says which part of which tensor stands where; ``__0_0.distcp`` and
its like hold the parts, each as ``torch.save`` writes a tensor::

    .metadata      "model.weight": shape (4, 3), parts at (0, 0) and (2, 0)
                   ("model.weight", (2, 0)): bytes 1261 to 2550 of __1_0.distcp

torch's own reader unpickles ``.metadata`` freely; here it is read by the unpickler that imports and
calls nothing.
"""

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, brief
from ._bytes import FileBytes, budget, check_size
from ._inert_pickle import Inert, unpickle
from ._mapping import Checkpoint
from ._readers import ReadOptions, reader
from ._state_dicts import find_state_dict
from ._torch import check_storages

METADATA = ".metadata"
_LARGEST = 2**30  # bytes of .metadata that are read

Offsets = tuple[int, ...]


class _Part(NamedTuple):
    """A box of a tensor, and the bytes that hold it."""

    file: str
    start: int
    length: int
    offsets: Offsets
    sizes: Offsets


class _Described(NamedTuple):
    """A tensor of the folder, its parts not read."""

    shape: torch.Size
    dtype: torch.dtype
    parts: tuple[_Part, ...]


class _Refused(ValueError):
    """What is wrong with the folder, in a few words."""


class _Folder:
    """Reads a tensor part by part."""

    def __init__(self, folder: Path, tensors: dict[str, _Described]) -> None:
        self.path, self.tensors = folder, tensors
        names = {part.file for described in tensors.values() for part in described.parts}
        self.files = {name: FileBytes(folder / name) for name in sorted(names)}

    def __call__(self, name: str) -> Tensor:
        described = self.tensors[name]
        tensor = torch.empty(described.shape, dtype=described.dtype)
        reached = torch.zeros(described.shape, dtype=torch.bool)
        for part in described.parts:
            box = tuple(
                slice(start, start + size)
                for start, size in zip(part.offsets, part.sizes, strict=True)
            )
            tensor[box] = self._part(name, part, described.dtype)
            reached[box] = True
        if not reached.all():
            raise CheckpointError(f"checkpoint '{self.path}': the parts of {name} do not cover it")
        return tensor

    def _part(self, name: str, part: _Part, dtype: torch.dtype) -> Tensor:
        content = self.files[part.file].read(part.start, part.length)
        try:
            reader = torch._C.PyTorchFileReader(io.BytesIO(content))
            check_storages(
                reader, budget(len(content)), lambda record: len(reader.get_record(record))
            )
            value = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        except Exception as error:  # damaged bytes make the unpickler raise nearly anything
            raise CheckpointError(
                f"checkpoint '{self.path}': {name} can't be read from {part.file} "
                f"({type(error).__name__}). Restore or remake it."
            ) from error
        if (
            not isinstance(value, Tensor)
            or tuple(value.shape) != part.sizes
            or value.dtype is not dtype
        ):
            raise CheckpointError(
                f"checkpoint '{self.path}': {part.file} does not hold {name} as {METADATA} says"
            )
        return value.detach()


def is_distributed(path: Path) -> bool:
    """Whether a folder is one of ``torch.distributed.checkpoint``."""
    return path.is_dir() and (path / METADATA).is_file()


@reader(
    "distributed",
    "a folder of torch.distributed.checkpoint (.metadata and .distcp files)",
    accepts=is_distributed,
)
def _read(path: Path, options: ReadOptions) -> Checkpoint:
    """Open the tensors of a folder; of the rest (numbers, settings of optimizers) nothing is
    read."""
    try:
        described = _metadata(path)
        content = _nested(described.planner, described.tensors)
        state = find_state_dict(
            path, content, options.key, lambda value: isinstance(value, _Described)
        )
        tensors = {
            str(name): value for name, value in state.items() if isinstance(value, _Described)
        }
        identities = {id(value) for value in tensors.values()}
        folder = _Folder(path, tensors)
        size = sum(file.size for file in folder.files.values())
        for name, value in tensors.items():  # all its parts may be the same bytes
            check_size(path, name, value.shape, value.dtype, size)
        return Checkpoint(
            path,
            folder,
            {name: value.shape for name, value in tensors.items()},
            {name: value.dtype for name, value in tensors.items()},
            skipped=(
                name for name, value in described.tensors.items() if id(value) not in identities
            ),
        )
    except (OSError, CheckpointError):
        raise
    except (
        Exception
    ) as error:  # a damaged pickle makes the unpickler, and what it leaves, raise nearly anything
        raise CheckpointError(
            f"checkpoint '{path}': its {METADATA} is damaged, "
            f"or not of torch.distributed.checkpoint ({type(error).__name__.strip('_')}: "
            f"{brief(error, 200)}). Restore or remake it."
        ) from error


class _Metadata(NamedTuple):
    tensors: dict[str, _Described]
    planner: Mapping[str, Any]  # flat name -> the path that it was flattened from


def _metadata(folder: Path) -> _Metadata:
    file = FileBytes(folder / METADATA)
    if file.size > _LARGEST:
        raise _Refused(f"it has {file.size:,} bytes")
    content, _, _ = unpickle(file.read(0, file.size), 0, {}, budget(file.size))
    state = _state(content)
    places = dict(_places(folder, state["storage_data"]))
    tensors = {
        name: _described(name, _state(value), places)
        for name, value in state["state_dict_metadata"].items()
        if isinstance(name, str) and "chunks" in (_state(value) or {})
    }
    planner = state.get("planner_data")
    return _Metadata(tensors, planner if isinstance(planner, Mapping) else {})


def _state(value: Any) -> Any:
    """What a pickled dataclass holds, field by field."""
    return value.state if isinstance(value, Inert) else value


def _places(
    folder: Path, storage: Mapping[Any, Any]
) -> Iterator[tuple[tuple[str, Offsets], tuple[str, int, int]]]:
    """(Name, first index of the part) -> (file, first byte, number of bytes)."""
    for key, value in storage.items():
        index, info = _state(key), _state(value)
        offsets = index.get("offset")
        if offsets is None:
            continue  # no part of a tensor
        file, start, length = info["relative_path"], info["offset"], info["length"]
        if not isinstance(file, str) or set(file) & {"/", "\\", "\0"} or file in ("", ".", ".."):
            raise _Refused(f"it names {brief(file)!r}; parts are files in the folder")
        if info.get("transform_descriptors"):
            raise _Refused(
                f"{index['fqn']} is transformed ({info['transform_descriptors']}), which metanet "
                "can't undo"
            )
        if not (_are_sizes((start, length)) and start + length <= (folder / file).stat().st_size):
            raise _Refused(f"{index['fqn']} ends behind the end of {file}")
        yield (index["fqn"], tuple(offsets)), (file, start, length)


def _described(
    name: str, state: Mapping[str, Any], places: Mapping[Any, tuple[str, int, int]]
) -> _Described:
    shape, dtype = tuple(state["size"]), _state(state["properties"])[0]
    if not _are_sizes(shape) or not isinstance(dtype, torch.dtype):
        raise _Refused(f"{name} has no shape or dtype")
    parts = []
    for chunk in map(_state, state["chunks"]):
        offsets, sizes = tuple(chunk["offsets"]), tuple(chunk["sizes"])
        if not (_are_sizes((*offsets, *sizes)) and len(offsets) == len(sizes) == len(shape)):
            raise _Refused(f"{name} has a part that is no box")
        if any(
            start + size > whole for start, size, whole in zip(offsets, sizes, shape, strict=True)
        ):
            raise _Refused(f"{name} has a part outside of it")
        if (name, offsets) not in places:
            raise _Refused(f"nothing says where the part of {name} at {offsets} is")
        part = _Part(*places[name, offsets], offsets, sizes)
        if math.prod(sizes) * dtype.itemsize > part.length:
            raise _Refused(f"a part of {name} takes more than its {part.length:,} bytes")
        parts.append(part)
    if sum(math.prod(part.sizes) for part in parts) != math.prod(shape):
        raise _Refused(f"the parts of {name} are not as large as it is")
    return _Described(torch.Size(shape), dtype, tuple(parts))


def _are_sizes(numbers: tuple[Any, ...]) -> bool:
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _nested(planner: Mapping[str, Any], tensors: Mapping[str, _Described]) -> dict[str, Any]:
    """What was saved, before it was flattened: ``model.weight`` of path ``("model", "weight")``
    stands in ``model``.

    Only the first step is taken back: names of a state dict hold dots of their own.
    """
    nested: dict[str, Any] = {}
    for name, value in tensors.items():
        steps = planner.get(name)
        if isinstance(steps, tuple) and len(steps) > 1:
            entry = nested.setdefault(str(steps[0]), {})
            entry[name.removeprefix(f"{steps[0]}.")] = value
        else:
            nested[name] = value
    return nested
