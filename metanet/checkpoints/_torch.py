"""What ``torch.save`` writes, read with ``weights_only=True``: tensors and plain containers, never
code."""

import pickle
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, brief
from ._archive import Archive, Refused, is_compressed, open_archive
from ._bytes import FileBytes, budget, check_size, sound_bools
from ._content import TORCH, TORCH_OLD, TORCHSCRIPT, kind_of
from ._inert import read_inert
from ._inert_pickle import unpickle
from ._mapping import Checkpoint, shared_memory
from ._pickle_scan import scan
from ._readers import ReadOptions, reader
from ._state_dicts import find_state_dict

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_FIRST = 3  # pickles before the content in a file of the older format
_OTHER = ".safetensors"  # of a path that ends so, torch does not look at the content
_MAPPED = 64 * 2**20  # bytes of a mapped file that may stay in memory after they were read


class _File:
    """The tensors of one torch file: zip files are mapped, and mapped anew when much of them has
    become resident."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.file, self.key = FileBytes(path), key
        self.mapped = _inspect(self.file)
        self._state: dict[str, Tensor] | None = None
        self._touched = 0
        self.skipped: tuple[str, ...] = ()

    def state(self) -> dict[str, Tensor]:
        """The state dict, of which nothing is read yet where the file can be mapped."""
        if self._state is None:
            self.file.check()
            content = _load(self.file, self.mapped)
            state = find_state_dict(self.file.path, content, self.key)
            self._state = {
                k: v.detach()
                for k, v in state.items()
                if isinstance(k, str) and isinstance(v, Tensor)
            }
            self.skipped = tuple(str(name) for name in state if name not in self._state)
        return self._state

    def __call__(self, name: str) -> Tensor:
        tensor = sound_bools(self.state()[name].clone())
        self._touched += tensor.numel() * tensor.element_size()
        if self.mapped and self._touched > _MAPPED:
            self._state, self._touched = None, 0
        return tensor

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_state": None, "_touched": 0}


@reader(
    "torch",
    f"torch files ({', '.join(SUFFIXES)})",
    accepts=lambda path: path.suffix in SUFFIXES and not path.is_dir(),
    kinds=(TORCH, TORCH_OLD, TORCHSCRIPT),
)
def _read(path: Path, options: ReadOptions) -> Checkpoint:
    """What ``torch.save`` or ``torch.jit.save`` wrote; nothing in the file is executed."""
    if options.foreign_classes == "inert":
        return read_inert(path, options.key)
    file = _File(path, options.key)
    state = file.state()
    for name, tensor in state.items():
        _check_dense(path, name, tensor)
        check_size(path, name, tensor.shape, tensor.dtype, file.file.size)
    return Checkpoint(
        path,
        file,
        {name: tensor.shape for name, tensor in state.items()},
        {name: tensor.dtype for name, tensor in state.items()},
        skipped=file.skipped,
        tied=shared_memory(state),
    )


def _check_dense(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse tensors that are no plain numbers in a row."""
    kinds = {
        "nested": tensor.is_nested,
        f"sparse ({tensor.layout})": tensor.layout is not torch.strided,
        f"quantised ({tensor.dtype})": tensor.is_quantized,
        "without data (meta device)": tensor.is_meta,
        f"of the class {type(tensor).__name__}": type(tensor)
        not in (Tensor, nn.Parameter, nn.Buffer),
    }
    if kind := next((kind for kind, is_so in kinds.items() if is_so), None):
        raise CheckpointError(
            f"checkpoint '{path}': {brief(name)} is {kind}; metanet reads dense tensors. Make it "
            "dense where it "
            "was made (to_dense(), dequantize()), or leave it out: load_checkpoint(path, "
            'foreign_classes="inert")'
        )


def load_objects(path: Path, classes: Iterable[type]) -> Any:
    """What a torch file holds, objects of these classes included.

    The file is looked at first, as checkpoints are.

    Raises:
        CheckpointError: it is missing or damaged, or holds objects of other classes.
    """
    file = FileBytes(path)
    _inspect(file)
    with torch.serialization.safe_globals([*classes]):
        try:
            return _load(file, mapped=False)
        except OSError as error:
            raise CheckpointError(f"'{path}' can't be read: {error.strerror or error}") from error


def _inspect(file: FileBytes) -> bool:
    """Look at a file before torch reads it: at the depth of its pickles, and at the sizes of its
    storages.

    Returns:
        Whether it can be mapped: a zip archive whose tensors are stored as they are.

    Raises:
        CheckpointError: reading it would take the stack, far more memory than the file, or bytes
            beside its storages.
    """
    try:
        if kind_of(file.path) not in (TORCH, TORCHSCRIPT):
            _inspect_older(file)
            return False
        return _inspect_archive(open_archive(file))
    except (OSError, CheckpointError):
        raise
    except Exception as error:
        raise CheckpointError(f"checkpoint '{file.path}' {_reason(error)}") from error


def _inspect_older(file: FileBytes) -> None:
    """Storages that the last pickle does not list are never read: their values would be whatever
    lay in memory."""
    most = budget(file.size)
    with file.mapped() as data:
        place = 0
        for _ in range(_FIRST):
            place = scan(data, place, most)
        _, place, storages = unpickle(data, place, {}, most)
        keys, _, _ = unpickle(data, place, {}, most)
    if lacking := sorted(set(storages) - set(keys)):
        raise Refused(f"its storage {brief(lacking[0])} is not among those that it has")


def _inspect_archive(archive: Archive) -> bool:
    """torch takes the sizes of storages from the pickle: one larger than its record would read what
    lies behind it."""
    mapped = not archive.compressed and archive.file.place.suffix != _OTHER
    for name, record in archive.records.items():
        if is_compressed(record):
            archive.read(name)  # of what can't be inflated torch leaves whatever lay in memory
    # By torch's own reader, whose records could be others than those of zipfile if an archive is
    # made so.
    reader = torch._C.PyTorchFileReader(str(archive.file.place))

    def size_of(name: str) -> int:
        archive.check_place(name)
        if not mapped and archive.read(name) != reader.get_record(name):
            raise Refused(
                f"its record {brief(name)} is damaged, or another than its directory says"
            )
        return archive.record(name).file_size

    check_storages(reader, budget(archive.file.size), size_of)
    return mapped


def check_storages(reader: Any, most: int, size_of: Callable[[str], int]) -> None:
    """Look at the pickle of an archive, and refuse storages that are larger than their records.

    Args:
        reader: torch's own of the archive.
        most: bytes of memory that what the pickle makes may take.
        size_of: bytes of a record, by its name.
    """
    _, _, storages = unpickle(reader.get_record("data.pkl"), 0, {}, most)
    for key, storage in storages.items():
        size = size_of(f"data/{key}")
        if storage.count * storage.dtype.itemsize > size:
            raise Refused(
                f"its storage {brief(key)} of {storage.count:,} values has {size:,} bytes"
            )


def _load(file: FileBytes, mapped: bool) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about foreign pickles and archives: the errors below say it better
            if file.place.suffix == _OTHER:
                with file.place.open("rb") as stream:
                    return torch.load(stream, weights_only=True, map_location="cpu")
            return torch.load(file.place, weights_only=True, map_location="cpu", mmap=mapped)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        raise CheckpointError(f"checkpoint '{file.path}' {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why ``torch.load`` gave up, and what to do; its own text advises to switch the protection
    off."""
    text = str(error)
    if forbidden := re.search(r"GLOBAL ([\w.]+)", text):
        return (
            f"holds an object of type {brief(forbidden[1])}: reading it could run code; metanet "
            "reads tensors only. "
            f'load_checkpoint(path, foreign_classes="inert") reads its tensors and runs nothing; '
            f"or save the state dict alone: torch.save(model.state_dict(), path)."
        )
    if "TorchScript" in text:
        return "is a TorchScript archive: load it with torch.jit.load and save its state_dict()"
    detail = (
        text.partition("WeightsUnpickler error:")[2]
        if isinstance(error, pickle.UnpicklingError)
        else text
    )
    lines = [line.strip() for line in (detail or text).splitlines() if line.strip()]
    what = (
        f"{type(error).__name__}: {brief(lines[0].split('. ')[0], 300)}"
        if lines
        else type(error).__name__
    )
    return f"is damaged, cut off, or was not written by torch.save ({what}). Restore or remake it."
