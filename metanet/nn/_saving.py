"""A trained metanetwork in two files: tensors, and how to build the model they belong to."""

import inspect
import json
import os
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import trust
from ..checkpoints import Checkpoint, load_checkpoint, save_checkpoint, settle, write_together
from ..documents import Document, read_json, validated
from ..errors import MetanetError
from ..sources import build_within
from ._metanet import Metanet
from ._registry import MODELS, build, find, reference

_TENSORS, _DESCRIPTION = "model.safetensors", "model.json"
_TOGETHER = Path(_TENSORS).stem
_FORMAT = 1
_SMALL = 4096  # what a setting that is no size may be in the smallest model: iterations, positions
_LONGEST = 60  # characters of a name or number in a message


class _Description(Document):
    """``model.json``."""

    format: int
    metanet: str
    model: str
    arguments: dict[str, Any]
    pair: str
    meta: dict[str, Any]
    reference: str | None = None  # package.module:Class of a model that is none of metanet's own


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
        "reference": reference(type(model)),
    }
    try:
        text = json.dumps(description, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MetanetError(
            f"the model's arguments and meta must be plain JSON types: {error}"
        ) from error
    with write_together(folder, _TOGETHER) as beside:
        save_checkpoint(beside / _TENSORS, model.tensors(), {"pair": pair})
        (beside / _DESCRIPTION).write_text(text + "\n")


def load(folder: str | os.PathLike) -> Metanet:
    """The model that :func:`save` wrote: same outputs bit for bit, ``meta`` as it was.

    ``model.json`` names a registered model and gives plain arguments; what sizes it states is
    checked against the tensors before anything is made. A model of somebody's own must be
    registered already, by importing its module, or the folder must be trusted
    (:mod:`metanet.trust`).

    Raises:
        MetanetError: no model there, a model this version does not know, or files that do not
            belong together.
        TrustError: the model's class is code of its author, and nobody trusts the folder.
    """
    folder = Path(folder)
    settle(folder, _TOGETHER)
    missing = [name for name in (_DESCRIPTION, _TENSORS) if not (folder / name).is_file()]
    if missing:
        raise MetanetError(f"no saved metanetwork in {folder}: it lacks {' and '.join(missing)}")
    description = _read(folder)
    cls = _class(description, folder)
    checkpoint = load_checkpoint(folder / _TENSORS)
    if checkpoint.metadata.get("pair") != description.pair:
        raise MetanetError(
            f"{folder}: {_TENSORS} and {_DESCRIPTION} are not of the same save: one was "
            "interrupted. Save again."
        )
    try:
        model = _build(cls, description.arguments, checkpoint, str(folder / _DESCRIPTION))
        model.load_tensors(dict(checkpoint))
    except MetanetError as error:
        raise MetanetError(f"{folder}: {error}{_written(description)}") from error
    model.meta.update(description.meta)
    return model


def _read(folder: Path) -> _Description:
    path = folder / _DESCRIPTION
    document = read_json(path)
    version = document.get("format", _FORMAT) if isinstance(document, dict) else _FORMAT
    if version != _FORMAT:
        raise MetanetError(
            f"{folder} has format {trust.shown(version)}, known is {_FORMAT}: use the metanet that wrote it"
        )
    return validated(_Description, document, f"'{path}'")


def _class(description: _Description, folder: Path) -> type[Metanet]:
    """The class that a file names: a registered one, or else code that needs trust."""
    if description.model in MODELS:
        return MODELS[description.model]
    name = trust.shown(description.model)
    if description.reference is None:
        raise MetanetError(
            f"{folder} holds a model {name}, known are: {', '.join(sorted(MODELS))}.{_written(description)} "
            "Is it one of your own? Import the module that registers it first: in predict, "
            "model=package.module:CLASS"
        )
    trust.require(
        [description.reference], folder, "the code of a metanetwork, which would be imported"
    )
    return find(description.reference)


def _build(
    cls: type[Metanet], arguments: Mapping[str, Any], tensors: Checkpoint, place: str
) -> Metanet:
    def make() -> Metanet:
        return build(cls.name, **arguments)

    if reference(cls) is not None:
        return make()  # code that the user imported, or trusts
    allowed = inspect.signature(cls.__init__).parameters
    if all(key in allowed for key in arguments):  # else build says what is allowed
        trust.check_arguments(cls.__init__, arguments, f"'{place}', arguments")
    _check_sizes(arguments, tensors, place)
    return build_within(make, tensors.shapes, f"'{place}'")


def _check_sizes(value: Any, tensors: Checkpoint, place: str, key: str = "arguments") -> None:
    """No count in the arguments is larger than that of all numbers: loops over it would not end."""
    most = max(_SMALL, sum(shape.numel() for shape in tensors.shapes.values()))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_sizes(inner, tensors, place, f"{key}.{name}"[:_LONGEST])
    elif isinstance(value, list):
        for inner in value:
            _check_sizes(inner, tensors, place, key)
    elif isinstance(value, int) and abs(value) > most and not key.endswith(".seed"):
        raise MetanetError(
            f"'{place}': {key}={str(value)[:_LONGEST]} can't be: its tensors have {most:,} numbers at most"
        )


def _written(description: _Description) -> str:
    if description.metanet == _version():
        return ""
    return f" It was written by metanet {trust.shown(description.metanet)}; this is {_version()}."


def _version() -> str:
    try:
        return version("metanet")
    except PackageNotFoundError:  # used from a source tree
        return "unknown"
