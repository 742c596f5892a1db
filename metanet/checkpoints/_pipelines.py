"""Folders of several networks that are used one after another: each part lies in a sub-folder that
an index names.

sentence-transformers: ``modules.json`` names a transformer (in the root), pooling and dense layers.
They are opened as one checkpoint, whose names say the part:

    embeddings.weight       model.safetensors
    2_Dense/linear.weight   2_Dense/model.safetensors

diffusers: ``model_index.json`` names networks that have nothing in common (text encoder, U-Net,
autoencoder): they are to be opened one by one.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ConfigDict
from torch import Tensor

from ..documents import Document, read_json, validated
from ..errors import CheckpointError
from ._folder import _read as read_folder
from ._mapping import Checkpoint
from ._readers import ReadOptions, reader
from ._torch import SUFFIXES

MODULES = "modules.json"
"""The file that lists the parts of a sentence-transformers folder."""
_PIPELINE = "model_index.json"
_PLAIN = re.compile(r"\w[\w.-]*")
_WEIGHTS = (".safetensors", *SUFFIXES)
PARTS = "parts"
"""The key of ``Checkpoint.metadata`` for the parts with weights: sub-folder -> file."""


class _Module(Document):
    """A row of ``modules.json``."""

    model_config = ConfigDict(extra="ignore")
    path: str


class _Parts:
    """Reads a tensor from the part that has it."""

    def __init__(self, parts: Mapping[str, Checkpoint]) -> None:
        self.parts = dict(parts)

    def __call__(self, name: str) -> Tensor:
        part, _, inner = name.rpartition("/")
        place = part if part in self.parts else ""
        return self.parts[place][inner if place else name]


def parts_of(folder: Path) -> list[str]:
    """The sub-folders that the ``modules.json`` of a folder names; none without one.

    Raises:
        CheckpointError: it is damaged, or names places elsewhere.
    """
    index = folder / MODULES
    if not index.is_file():
        return []
    rows = validated(
        list[_Module], read_json(index, error=CheckpointError), f"'{index}'", error=CheckpointError
    )
    named = [row.path for row in rows if row.path]
    if wrong := [path for path in named if not _PLAIN.fullmatch(path)]:
        raise CheckpointError(
            f"'{index}' names the part {wrong[0][:60]!r}: parts are sub-folders, by a plain name"
        )
    return named


def has_weights(folder: Path) -> bool:
    """Whether a part has parameters: pooling and normalisation have none, and often no folder."""
    return folder.is_dir() and any(file.suffix in _WEIGHTS for file in folder.iterdir())


@reader(
    "modules",
    "a folder of several with modules.json",
    accepts=lambda path: (path / MODULES).is_file(),
    first=True,
)
def _read(path: Path, options: ReadOptions) -> Checkpoint:
    """All parts as one checkpoint; that of the root alone where it is the only one with weights."""
    parts = {
        name: read_folder(path / name, options)
        for name in parts_of(path)
        if has_weights(path / name)
    }
    if not parts:
        return read_folder(path, options)
    if has_weights(path):
        parts = {"": read_folder(path, options), **parts}
    named = {
        (f"{part}/{name}" if part else name): (part, name)
        for part, checkpoint in parts.items()
        for name in checkpoint
    }
    metadata = dict(parts[""].metadata) if "" in parts else {}
    metadata[PARTS] = {part: str(checkpoint.path) for part, checkpoint in parts.items() if part}
    return Checkpoint(
        parts[""].path if "" in parts else path / MODULES,
        _Parts(parts),
        {new: parts[part].shapes[name] for new, (part, name) in named.items()},
        {new: parts[part].dtypes[name] for new, (part, name) in named.items()},
        metadata,
    )


@reader(
    "pipeline",
    "a part of a pipeline",
    accepts=lambda path: (path / _PIPELINE).is_file(),
    first=True,
)
def _refuse(path: Path, options: ReadOptions) -> Checkpoint:
    """A pipeline is several networks: refused, with the names of its parts."""
    there = [
        inner.name for inner in sorted(path.iterdir()) if inner.is_dir() and has_weights(inner)
    ]
    raise CheckpointError(
        f"checkpoint '{path}' is a diffusers pipeline ({_PIPELINE}), several networks that have "
        f"nothing in common: {', '.join(there[:8]) or 'none of them is here'}. Give one of them, "
        f"'{path / (there[0] if there else 'unet')}', and put the others beside the result yourself"
    )
