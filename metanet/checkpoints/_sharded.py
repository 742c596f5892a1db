"""Checkpoints in several files, with an index that says which tensor is where."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import ConfigDict
from torch import Tensor

from ..documents import Document, read_json, validated
from ..errors import CheckpointError, brief, listed
from ._mapping import Checkpoint
from ._readers import ReadOptions, open_path, reader
from ._safetensors import decode
from ._torch import SUFFIXES

INDEX = ".index.json"


class _Index(Document):
    """What ``x.index.json`` says; programs write more beside."""

    model_config = ConfigDict(extra="ignore")

    weight_map: Annotated[dict[str, str], MinLen(1)]
    metadata: dict[str, Any] | None = None


class _Shards:
    """Reads a tensor from the shard that has it."""

    def __init__(self, shards: Mapping[str, Checkpoint], where: Mapping[str, str]) -> None:
        self.shards, self.where = shards, where

    def __call__(self, name: str) -> Tensor:
        return self.shards[self.where[name]][name]


def is_index(path: Path) -> bool:
    """Whether a path is called like an index: the suffix of its shards before ``.index.json``."""
    kind = Path(path.name.removesuffix(INDEX)).suffix
    return path.name.endswith(INDEX) and kind in (".safetensors", *SUFFIXES)


@reader(
    "shards",
    "their shards, by the index (.safetensors.index.json, .bin.index.json)",
    accepts=is_index,
)
def _read(path: Path, options: ReadOptions) -> Checkpoint:
    """Open all shards that the index names: their headers are read, and no data."""
    where, metadata = read_index(path)
    shards = _open(path, where, options)
    for name, file in where.items():
        if name not in shards[file]:
            raise CheckpointError(
                f"checkpoint '{path}': its index says that {brief(name)} is in {brief(file)}, "
                "which has no such tensor: index and shards are of different versions. Restore or "
                "remake them."
            )
    unlisted = [name for file, shard in shards.items() for name in shard if where.get(name) != file]
    if unlisted:
        warnings.warn(
            f"checkpoint '{path}': left out {_some(unlisted)}, which its index does not list",
            stacklevel=4,
        )
    return Checkpoint(
        path,
        _Shards(shards, where),
        {name: shards[file].shapes[name] for name, file in where.items()},
        {name: shards[file].dtypes[name] for name, file in where.items()},
        decode(path, metadata),
        (*unlisted, *(name for shard in shards.values() for name in shard.skipped)),
        dict.fromkeys(name for shard in shards.values() for name in shard.foreign),
        {name: one for shard in shards.values() for name, one in shard.tied.items()},
    )


def read_index(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Tensor name -> shard's file name, and the index's metadata.

    An index is input like the shards: it may name files of its own folder only. The shards
    themselves may be links, as they are in the cache of the Hugging Face hub.

    Raises:
        CheckpointError: no JSON, no weight map, or a shard that isn't a plain file name with the
            index's suffix.
    """
    content = read_json(path, error=CheckpointError, unique=True)
    index = validated(_Index, content, f"checkpoint '{path}'", error=CheckpointError)
    allowed = (".safetensors",) if ".safetensors" in path.suffixes else SUFFIXES
    for name, file in index.weight_map.items():
        if set(file) & {"/", "\\", ":", "\0"} or Path(file).suffix not in allowed:
            raise CheckpointError(
                f"checkpoint '{path}': its index says that {brief(name)} is in {brief(file)!r}; "
                "shards are files beside the index, named without a folder and ending in "
                f"{' or '.join(allowed)}"
            )
    return index.weight_map, index.metadata or {}


def files_of(path: Path) -> list[Path]:
    """The files that a checkpoint consists of, by its ``path``.

    The file itself, or the index and its shards.
    """
    if not is_index(path):
        return [path]
    return [path, *(path.parent / name for name in sorted(set(read_index(path)[0].values())))]


def _open(path: Path, where: Mapping[str, str], options: ReadOptions) -> dict[str, Checkpoint]:
    files = list(dict.fromkeys(where.values()))
    if missing := [file for file in files if not (path.parent / file).exists()]:
        names = [name for name, file in where.items() if file == missing[0]]
        others = f"; {len(missing)} of {len(files)} shards are missing" if len(missing) > 1 else ""
        raise CheckpointError(
            f"checkpoint '{path}' lacks its shard {brief(missing[0])}, which has "
            f"{_some(names)}{others}"
        )
    return {file: open_path(path.parent / file, options) for file in files}


def _some(names: list[str]) -> str:
    return listed(names, 5) + (" tensors" if len(names) > 5 else "")
