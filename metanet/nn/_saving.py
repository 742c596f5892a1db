"""A trained metanetwork in two files: tensors, and how to build the model they belong to. No code is ever read."""

import json
import os
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..checkpoints import load_checkpoint, save_checkpoint, settle, write_together
from ..errors import MetanetError
from ._registry import MODELS, Metanet, build

_TENSORS, _DESCRIPTION = "model.safetensors", "model.json"
_TOGETHER = Path(_TENSORS).stem
_FORMAT = 1


def save(folder: str | os.PathLike, model: Metanet, meta: Mapping[str, Any] | None = None) -> None:
    """Writes a model with its normalisation, so that :func:`load` needs nothing else.

    Args:
        folder: is made if need be; a model in it is replaced, both files as one.
        model: any registered model.
        meta: anything else to keep, JSON types only; added to ``model.meta``.

    Raises:
        MetanetError: ``meta`` is no JSON, or the disk is full.
    """
    folder = Path(folder)
    model.meta.update(meta or {})
    pair = uuid.uuid4().hex  # tells that both files are of one save, should somebody copy only one
    description = {
        "format": _FORMAT,
        "metanet": _version(),
        "model": model.name,
        "arguments": model.arguments,
        "pair": pair,
        "meta": model.meta,
    }
    try:
        text = json.dumps(description, indent=1)
    except (TypeError, ValueError) as error:
        raise MetanetError(f"the model's arguments and meta must be plain JSON types: {error}") from error
    with write_together(folder, _TOGETHER) as beside:
        save_checkpoint(beside / _TENSORS, model.tensors(), {"pair": pair})
        (beside / _DESCRIPTION).write_text(text + "\n")


def load(folder: str | os.PathLike) -> Metanet:
    """The model that :func:`save` wrote: same outputs bit for bit, ``meta`` as it was.

    Raises:
        MetanetError: no model there, a model this version does not know, or files that do not belong together.
    """
    folder = Path(folder)
    settle(folder, _TOGETHER)
    missing = [name for name in (_DESCRIPTION, _TENSORS) if not (folder / name).is_file()]
    if missing:
        raise MetanetError(f"no saved metanetwork in {folder}: it lacks {' and '.join(missing)}")
    try:
        description = json.loads((folder / _DESCRIPTION).read_text())
        name, arguments = description["model"], description["arguments"]
    except (ValueError, KeyError, TypeError) as error:
        raise MetanetError(f"{folder / _DESCRIPTION} is damaged: {type(error).__name__}: {error}") from error
    written = f"It was written by metanet {description.get('metanet')}; this is {_version()}."
    if description.get("format") != _FORMAT:
        raise MetanetError(f"{folder} has format {description.get('format')}, known is {_FORMAT}. {written}")
    if name not in MODELS:
        raise MetanetError(f"{folder} holds a model {name!r}, known are: {', '.join(sorted(MODELS))}. {written}")
    checkpoint = load_checkpoint(folder / _TENSORS)
    if checkpoint.metadata.get("pair") != description.get("pair"):
        raise MetanetError(
            f"{folder}: {_TENSORS} and {_DESCRIPTION} are not of the same save: one was interrupted. Save again."
        )
    try:
        model = build(name, **arguments)
        model.load_tensors(dict(checkpoint))
    except MetanetError as error:
        raise MetanetError(f"{folder}: {error}\n{written}") from error
    model.meta.update(description.get("meta", {}))
    return model


def _version() -> str:
    try:
        return version("metanet")
    except PackageNotFoundError:  # used from a source tree
        return "unknown"
