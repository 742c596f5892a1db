"""``last.ckpt``: what a stopped run goes on from, as tensors and JSON, so that reading it can never
run code.

Lightning hands over a nested structure of tensors and plain values. Every tensor goes into a
safetensors file, and the structure into that file's metadata, with a tag for all that JSON has
not::

    {"epoch": 3, "betas": (0.9, 0.999), "state": {0: {"step": tensor(7.)}}}

    {"dict": [["epoch", 3], ["betas", {"tuple": [0.9, 0.999]}],
              ["state", {"dict": [[0, {"dict": [["step", {"tensor": "0"}]]}]]}]]}

There is nothing else: an object of any other class is refused when it is written, and can't be
named by a file.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..checkpoints import atomic_write
from ..documents import Document, parse_json, validated
from ..errors import MetanetError

_KEY = "metanet.last"
_FORMAT = 1
_PLAIN = (bool, int, str, type(None))
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Last(Document):
    """What Lightning reads of a checkpoint. Other keys are those of its plugins."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, arbitrary_types_allowed=True)

    epoch: int = Field(ge=0)
    global_step: int = Field(ge=0)
    version: str = Field(alias="pytorch-lightning_version")
    state_dict: dict[str, Tensor]
    loops: dict[str, dict[str, Any]]
    callbacks: dict[str, dict[str, Any]]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[dict[str, Any]]


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints without pickle, whole or not at all: a run killed meanwhile keeps the
    epoch before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            MetanetError: something in it is neither tensor nor plain value, or it can't be written
                there.
        """
        tensors: dict[str, Tensor] = {}
        tree = {"format": _FORMAT, "content": _taken_apart(checkpoint, tensors, "")}
        content = save(tensors, {_KEY: json.dumps(tree, allow_nan=False)})
        with atomic_write(path, len(content)) as temporary:
            temporary.write_bytes(content)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint that :meth:`save_checkpoint` wrote; tensors are on the CPU.

        Raises:
            MetanetError: it is missing, damaged, or anything else.
        """
        return load_last(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


def load_last(path: Path) -> dict[str, Any]:
    """What :class:`SafeCheckpointIO` wrote, checked for all that Lightning takes for granted.

    Raises:
        MetanetError: it is missing, damaged, or of another program.
    """
    if not path.is_file():
        raise MetanetError(f"'{path}' can't be read: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise _no_checkpoint(path, str(error)) from None
    if text is None:
        raise _no_checkpoint(path, "it has tensors only")
    tree = parse_json(text.encode("utf-8", "surrogatepass"), f"'{path}'")
    if (
        not isinstance(tree, dict)
        or set(tree) != {"format", "content"}
        or tree["format"] != _FORMAT
    ):
        raise _no_checkpoint(path, f"its structure is not of format {_FORMAT}")
    try:
        content = _put_together(tree["content"], tensors)
    except (ValueError, RecursionError) as error:
        raise _no_checkpoint(path, str(error)) from None
    validated(Last, content, f"'{path}'")
    return content


def _no_checkpoint(path: Path, why: str) -> MetanetError:
    return MetanetError(
        f"can't go on from '{path}': it is damaged, or no checkpoint that this version of metanet "
        f"wrote ({why[:200]}). Its run has to be trained again from the start."
    )


def _taken_apart(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON for a value; its tensors go into ``tensors`` under numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if type(value) in _PLAIN:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) in (list, tuple):
        kind = type(value).__name__
        return {
            kind: [_taken_apart(part, tensors, f"{where}[{i}]") for i, part in enumerate(value)]
        }
    if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
        return {
            "dict": [
                [key, _taken_apart(part, tensors, f"{where}[{key!r}]")]
                for key, part in value.items()
            ]
        }
    raise MetanetError(
        f"can't write the checkpoint: {where or 'it'} is a {type(value).__name__}; tensors, "
        "numbers, text, and lists, tuples and dicts of them can be written"
    )


def _put_together(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`_taken_apart`. ValueError for everything that it does not write."""
    if type(node) in (*_PLAIN, float):
        return node
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError(f"{str(node)[:60]!r} has no tag")
    ((tag, content),) = node.items()
    if tag == "tensor" and isinstance(content, str) and content in tensors:
        return tensors[content]
    if tag == "float" and isinstance(content, str) and content in _NOT_FINITE:
        return _NOT_FINITE[content]
    if tag in ("list", "tuple") and isinstance(content, list):
        items = [_put_together(part, tensors) for part in content]
        return items if tag == "list" else tuple(items)
    if tag == "dict" and isinstance(content, list):
        return dict(_pair(part, tensors) for part in content)
    raise ValueError(f"{str(node)[:60]!r} is not what a checkpoint holds")


def _pair(entry: Any, tensors: dict[str, Tensor]) -> tuple[int | str, Any]:
    if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) not in (int, str):
        raise ValueError(f"{str(entry)[:60]!r} is no key with its value")
    return entry[0], _put_together(entry[1], tensors)
