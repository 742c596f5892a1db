"""``save_checkpoint``: safetensors, two tensors in memory at a time, visible as a whole or not at
all."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError, MetanetError
from ._atomic import atomic_write
from ._mapping import Checkpoint
from ._safetensors import DTYPES, METADATA_KEY, encode
from ._sharded import INDEX, read_index
from ._together import write_together

_SUFFIX = ".safetensors"
_WHOLE = f"model{_SUFFIX}"
_INDEX = f"{_WHOLE}{INDEX}"
_UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_STORABLE = frozenset(DTYPES.values())
_Described = tuple[torch.Size, torch.dtype]


def save_checkpoint(
    path: str | os.PathLike,
    mapping: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    max_shard_size: str | int | None = None,
) -> None:
    """Write tensors to a safetensors file or to a folder of shards, as a whole or not at all.

    Every name gets values of its own: tied tensors (one storage under two names), views, and
    tensors that aren't contiguous are written as independent contiguous copies, so that any program
    can read any name; what was tied is for the architecture to say. Values, shapes, dtypes and the
    order of the names come back bit for bit. NaN and infinity are values like others
    (:func:`report_nonfinite`).

    A folder gets ``model.safetensors`` if one file is enough, else
    ``model-00001-of-0000N.safetensors`` and ``model.safetensors.index.json``, as Hugging Face
    libraries lay them out. A checkpoint that was there stays complete until the new one is, and
    then all is swapped as one (:func:`write_together`); new shards never take the names of old ones
    (they get eight more characters then). Other files of the folder are left alone.

    Args:
        path: a file, ending in ``.safetensors``, or a folder: any other path that exists as one,
            has no suffix, or is given with a ``max_shard_size``. Missing folders are made, an old
            checkpoint is replaced at the end.
        mapping: tensors by name, on any device; a :class:`Checkpoint` too, even the one at
            ``path``: one of its tensors is read while the one before is written. Any other mapping
            is gone through twice, so one that computes its tensors should be a ``Checkpoint`` with
            a ``read`` that does.
        metadata: JSON-able; comes back as ``load_checkpoint(path).metadata``.
        max_shard_size: bytes of tensors in one file of a folder, as a number or like ``"5GB"`` (the
            default) or ``"500MiB"``; a tensor larger than that has a file of its own.

    Raises:
        CheckpointError: another suffix, a value that is no dense tensor with data, a dtype that the
            format hasn't, metadata that is no JSON, or a disk that is full (an old checkpoint is
            still there then).
    """
    path = Path(path)
    folder = path.suffix != _SUFFIX and (
        path.is_dir() or not path.suffix or max_shard_size is not None
    )
    if not folder and path.suffix != _SUFFIX:
        raise CheckpointError(
            f"can't write '{path}': metanet writes checkpoints as .safetensors; "
            f"a folder with a dot in its name is taken for one if max_shard_size is given"
        )
    if not folder and max_shard_size is not None:
        raise CheckpointError(
            f"can't write '{path}' in shards (max_shard_size={max_shard_size!r}): give a folder"
        )
    try:
        text = None if metadata is None else json.dumps(dict(metadata))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"can't write '{path}': the metadata is no JSON: {error}") from error
    try:
        described = _describe(mapping)
        if folder:
            _write_folder(
                path,
                mapping,
                described,
                text,
                _bytes("5GB" if max_shard_size is None else max_shard_size),
            )
        else:
            with atomic_write(path, size=_size(described)) as temporary:
                _write(temporary, mapping, described, text)
    except (MetanetError, OSError) as error:
        why = str(error)
        raise CheckpointError(
            why if str(path) in why else f"can't write '{path}': {why}"
        ) from error


def _describe(mapping: Mapping[str, Tensor]) -> dict[str, _Described]:
    """Shape and dtype by name, without reading a checkpoint's data."""
    if isinstance(mapping, Checkpoint):
        described = {name: (shape, mapping.dtypes[name]) for name, shape in mapping.shapes.items()}
    else:
        described = {}
        for name, value in mapping.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise CheckpointError(
                    f"{name!r} is {type(value).__name__}, expected name -> tensor"
                )
            _check_dense(name, value)
            described[name] = (value.shape, value.dtype)
    for name, (_, dtype) in described.items():
        if dtype not in _STORABLE:
            raise CheckpointError(
                f"{name} is a {dtype} tensor; "
                f"safetensors holds {', '.join(sorted(map(str, _STORABLE)))}"
            )
    return described


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        raise CheckpointError(
            f"{name} is a {tensor.dtype} tensor, {tensor.layout}, on {tensor.device}; "
            f"safetensors holds dense tensors with data"
        )


def _size(described: Mapping[str, _Described]) -> int:
    return sum(shape.numel() * dtype.itemsize for shape, dtype in described.values())


def _bytes(size: str | int) -> int:
    """``"5GB"`` as a number."""
    match = re.fullmatch(r"([\d.]+) *([KMGT]I?B)?", str(size).upper())
    try:
        number = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    except (ValueError, KeyError):
        number = 0
    if number < 1:
        raise CheckpointError(
            f"max_shard_size={size!r}: give bytes, or a text such as '5GB' or '500MiB'"
        )
    return number


def _write(
    path: Path,
    mapping: Mapping[str, Tensor],
    described: Mapping[str, _Described],
    metadata: str | None,
) -> None:
    """One file: the header first, then each tensor as it is read."""
    # "format" is what other libraries look for before they take a file for PyTorch's.
    start, order = encode(
        described, {"format": "pt"} | ({} if metadata is None else {METADATA_KEY: metadata})
    )
    # Another thread writes while the next tensor is read or computed here, not the other way round:
    # malloc keeps memory of the main thread for the next tensor, that of other threads goes back to
    # the system every time.
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(_write_all, file, start)
        for name in order:
            tensor = mapping[name]
            _check_dense(name, tensor)
            tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
            if (tensor.shape, tensor.dtype) != described[name]:
                raise CheckpointError(
                    f"{name} was announced as {tuple(described[name][0])} {described[name][1]}, "
                    f"and is {tuple(tensor.shape)} {tensor.dtype}"
                )
            writing.result()
            if tensor.numel():
                writing = pool.submit(_write_all, file, tensor.view(-1).view(torch.uint8).numpy())
            del tensor
        writing.result()


def _write_all(file: BinaryIO, content: Any) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[file.write(remaining) :]  # the system takes 2 GiB at most at a time


def shard_plan(checkpoint: Checkpoint, max_shard_size: str | int = "5GB") -> dict[str, list[str]]:
    """The files that a new folder of this checkpoint would have.

    With the names of the tensors in each, in order.

    Args:
        checkpoint: of which no data is read.
        max_shard_size: bytes of tensors in one file, as :func:`save_checkpoint` takes them.

    Raises:
        CheckpointError: a dtype that safetensors hasn't, or no size.
    """
    shards = _divide(_describe(checkpoint), _bytes(max_shard_size))
    return dict(zip(_usual_names(len(shards)), shards, strict=True))


def write_index(folder: Path, checkpoint: Checkpoint, plan: Mapping[str, Iterable[str]]) -> None:
    """Write the index of shards; one file needs none.

    Args:
        folder: that has the shards.
        checkpoint: what was written, of which no data is read.
        plan: what :func:`shard_plan` said of it.

    Raises:
        MetanetError: the disk is full, or the folder can't be written to.
    """
    if len(plan) > 1:
        _write_index(folder, _index(_describe(checkpoint), plan, None))


def _index(
    described: Mapping[str, _Described], plan: Mapping[str, Iterable[str]], metadata: str | None
) -> Any:
    return {
        "metadata": {"total_size": _size(described)}
        | ({} if metadata is None else {METADATA_KEY: metadata}),
        "weight_map": {name: file for file, shard in plan.items() for name in shard},
    }


def _write_index(folder: Path, index: Any) -> None:
    with atomic_write(folder / _INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=2), encoding="utf-8")


def _write_folder(
    folder: Path,
    mapping: Mapping[str, Tensor],
    described: Mapping[str, _Described],
    metadata: str | None,
    limit: int,
) -> None:
    """A folder's checkpoint: all its files take the place of the old ones as one."""
    shards = _divide(described, limit)
    with write_together(
        folder, Path(_WHOLE).stem, lambda: _present(folder), _size(described)
    ) as beside:
        names = [_WHOLE] if len(shards) == 1 else _free_names(folder, len(shards))
        for name, shard in zip(names, shards, strict=True):
            _write(
                beside / name,
                mapping,
                {n: described[n] for n in shard},
                metadata if name == _WHOLE else None,
            )
        if len(shards) > 1:
            _write_index(beside, _index(described, dict(zip(names, shards, strict=True)), metadata))


def _divide(described: Mapping[str, _Described], limit: int) -> list[list[str]]:
    """Names by shard, in their order, each shard as full as the limit allows."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in described.items():
        needed = _size({name: tensor})
        if shards[-1] and size + needed > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += needed
    return shards


def _usual_names(count: int, mark: str = "") -> list[str]:
    return (
        [_WHOLE]
        if count == 1
        else [f"model-{mark}{i:05d}-of-{count:05d}{_SUFFIX}" for i in range(1, count + 1)]
    )


def _free_names(folder: Path, count: int) -> list[str]:
    """The usual names of shards, or others like them if one is taken: an old index never names new
    shards."""
    names = _usual_names(count)
    occupied = any((folder / name).exists() for name in names)
    return _usual_names(count, f"{uuid.uuid4().hex[:8]}-") if occupied else names


def _present(folder: Path) -> list[str]:
    """Files of the checkpoint that a folder has now under the names used here, index first."""
    present = [_INDEX] if (folder / _INDEX).is_file() else []
    if present:
        # of a damaged index, nobody knows the shards: they stay
        with contextlib.suppress(CheckpointError):
            present += dict.fromkeys(read_index(folder / _INDEX)[0].values())
    return [*present, _WHOLE]
