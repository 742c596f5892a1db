"""What ``torch.save`` writes, read with ``weights_only=True``: tensors and plain containers, never code."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ._bytes import FileBytes
from ._inert import read_inert
from ._mapping import Checkpoint, shared_memory
from ._readers import Options, reader
from ._state_dicts import find_state_dict

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_MAPPED = 64 * 2**20  # bytes of a mapped file that may stay in memory after they were read


class _File:
    """The tensors of one torch file: zip files are mapped, and mapped anew when much of them has become resident."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.file, self.key = FileBytes(path), key
        self.mapped = zipfile.is_zipfile(path)  # the older format can't be: it is in memory as a whole
        self._state: dict[str, Tensor] | None = None
        self._touched = 0
        self.skipped: tuple[str, ...] = ()

    def state(self) -> dict[str, Tensor]:
        """The state dict, of which nothing is read yet where the file can be mapped."""
        if self._state is None:
            self.file.check()
            content = _load(self.file, self.mapped)
            found = find_state_dict(self.file.path, content, self.key)
            self._state = {k: v.detach() for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}
            self.skipped = tuple(str(name) for name in found if name not in self._state)
        return self._state

    def __call__(self, name: str) -> Tensor:
        tensor = self.state()[name].clone()
        self._touched += tensor.numel() * tensor.element_size()
        if self.mapped and self._touched > _MAPPED:
            self._state, self._touched = None, 0
        return tensor

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_state": None, "_touched": 0}


@reader(f"torch files ({', '.join(SUFFIXES)})", accepts=lambda path: path.suffix in SUFFIXES and not path.is_dir())
def _read(path: Path, options: Options) -> Checkpoint:
    if options.foreign_classes == "inert":
        return read_inert(path, options.key)
    file = _File(path, options.key)
    state = file.state()
    return Checkpoint(
        path,
        file,
        {name: tensor.shape for name, tensor in state.items()},
        {name: tensor.dtype for name, tensor in state.items()},
        skipped=file.skipped,
        tied=shared_memory(state),
    )


def _load(file: FileBytes, mapped: bool) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles and archives: the errors below say it better
            return torch.load(file.place, weights_only=True, map_location="cpu", mmap=mapped)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything (KeyError, EOFError, ...)
        raise CheckpointError(f"checkpoint '{file.path}' {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why ``torch.load`` gave up, and what to do; its own text advises to switch the protection off."""
    text = str(error)
    if forbidden := re.search(r"GLOBAL ([\w.]+)", text):
        return (
            f"holds an object of type {forbidden[1]}: reading it could run code, and metanet reads tensors only. "
            f'load_checkpoint(path, foreign_classes="inert") reads its tensors and runs nothing; '
            f"or save the state dict alone: torch.save(model.state_dict(), path)."
        )
    if "TorchScript" in text:
        return "is a TorchScript archive: load it with torch.jit.load and save its state_dict()"
    detail = text.partition("WeightsUnpickler error:")[2] if isinstance(error, pickle.UnpicklingError) else text
    lines = [line.strip() for line in (detail or text).splitlines() if line.strip()]
    what = f"{type(error).__name__}: {lines[0].split('. ')[0]}" if lines else type(error).__name__
    return f"is damaged, cut off, or was not written by torch.save ({what}). Restore or remake it."
