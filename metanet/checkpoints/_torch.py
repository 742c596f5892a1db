"""What ``torch.save`` writes, read with ``weights_only=True``: tensors and plain containers, never code."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ._mapping import Checkpoint
from ._readers import reader

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training code puts the state dict


@reader(f"torch files ({', '.join(SUFFIXES)})", accepts=lambda path: path.suffix in SUFFIXES and not path.is_dir())
def _read(path: Path) -> Checkpoint:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles and archives: the errors below say it better
            # The zip format can be mapped into memory: data is then read from the disk when it is used.
            content = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything (KeyError, EOFError, ...)
        raise CheckpointError(f"checkpoint '{path}' {_reason(error)}") from error
    state = _unwrap(content)
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"checkpoint '{path}' holds a {type(state).__name__}, expected a state dict: name -> tensor"
        )
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if state and not tensors:
        raise CheckpointError(
            f"checkpoint '{path}' has no tensors at its top level, only {', '.join(map(str, list(state)[:10]))}; "
            f"save the state dict alone, or under one of {', '.join(WRAPPERS)}"
        )
    return Checkpoint(
        path,
        tensors.__getitem__,
        {name: tensor.shape for name, tensor in tensors.items()},
        {name: tensor.dtype for name, tensor in tensors.items()},
        skipped=tuple(str(name) for name in state if name not in tensors),
    )


def _unwrap(content: Any) -> Any:
    """The state dict inside ``{"state_dict": ..., "epoch": ...}`` and its like, nested a few levels at most."""
    for _ in range(len(WRAPPERS)):
        if not isinstance(content, Mapping):
            break
        inner = (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping))
        content = next(inner, content)
    return content


def _reason(error: Exception) -> str:
    """Why ``torch.load`` gave up, and what to do; its own text advises to switch the protection off."""
    text = str(error)
    if forbidden := re.search(r"GLOBAL ([\w.]+)", text):
        return (
            f"holds an object of type {forbidden[1]}: reading it could run code, and metanet reads tensors only. "
            f"Where the file is trusted, save its state dict alone: torch.save(model.state_dict(), path)."
        )
    if "TorchScript" in text:
        return "is a TorchScript archive: load it with torch.jit.load and save its state_dict()"
    detail = text.partition("WeightsUnpickler error:")[2] if isinstance(error, pickle.UnpicklingError) else text
    lines = [line.strip() for line in (detail or text).splitlines() if line.strip()]
    what = f"{type(error).__name__}: {lines[0].split('. ')[0]}" if lines else type(error).__name__
    return f"is damaged, cut off, or was not written by torch.save ({what}). Restore or remake it."
