"""Bytes of a file by position, straight into a tensor's memory."""

import lzma
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..documents import check_regular
from ..errors import CheckpointError, brief

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OverflowError,
)
"""What ``zipfile`` raises where an archive is damaged."""

_SPARE = 256 * 2**20


def budget(size: int) -> int:
    """Bytes of memory that a file of this size may ask for: three times its size and 256 MiB."""
    return 3 * size + _SPARE


def check_size(path: Path, name: str, shape: Sequence[int], dtype: torch.dtype, size: int) -> None:
    """Refuse a tensor that takes far more memory than its file: a view that repeats its values, a
    made-up shape.

    >>> check_size(Path("x.pt"), "w", (2**20, 2**20), torch.float32, 1_000)
    Traceback (most recent call last):
    metanet.errors.CheckpointError: checkpoint 'x.pt': w is (1048576, 1048576) of torch.float32, ...

    Raises:
        CheckpointError: it takes more than three times the file and 256 MiB, or its sizes can't be
            multiplied.
    """
    needed = prod(shape) * dtype.itemsize
    if needed > budget(size) or prod(max(1, n) for n in shape) * dtype.itemsize >= 2**63:
        raise CheckpointError(
            f"checkpoint '{path}': {brief(name)} is {brief(tuple(shape))} of {dtype}, {needed:,} "
            f"bytes, which a file of {size:,} bytes does not hold: it is damaged, or made to fill "
            "the memory. Restore or remake it."
        )


class FileBytes:
    """A file read piece by piece: it is opened for each piece, so nothing stays mapped or open
    between two.

    Mapped pages count as the process's memory for as long as the mapping lives; merging models
    larger than memory needs them gone. Goes to other processes by its path, and notices a file that
    was replaced or changed since.

    Args:
        path: the file; also what messages call it.
    """

    def __init__(self, path: Path) -> None:
        check_regular(path, error=CheckpointError)
        self.path = path
        self.place = path.absolute()  # a process that reads later may stand in another folder
        status = os.stat(self.place)
        self.size, self._changed = status.st_size, (status.st_ino, status.st_mtime_ns)

    def read(self, start: int, count: int) -> bytes:
        """At most ``count`` bytes from ``start`` on, fewer where the file ends."""
        content = bytearray(max(0, min(count, self.size - start)))
        self._fill(memoryview(content), start)
        return bytes(content)

    def mapped(self) -> mmap.mmap:
        """The whole file as bytes that are read when looked at; close it (``with``) soon."""
        with open(self.place, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def tensor(self, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A new contiguous tensor of the bytes from ``start`` on, bit for bit; of bool, all bytes
        but 0 are True."""
        tensor = torch.empty(tuple(shape), dtype=dtype)
        if tensor.numel():
            values = tensor.view(-1).view(torch.uint8).numpy()
            self._fill(memoryview(values), start)  # type: ignore[arg-type]
        return sound_bools(tensor)

    def check(self) -> None:
        """Raise ``CheckpointError`` if the file is not the one that was opened."""
        try:
            self._check(os.stat(self.place))
        except OSError as error:
            raise self._unreadable(error) from error

    def _fill(self, memory: memoryview, start: int) -> None:
        try:
            with open(self.place, "rb", buffering=0) as file:
                self._check(os.fstat(file.fileno()))
                file.seek(start)
                while memory:
                    count = file.readinto(memory)  # the system reads 2 GiB at most at a time
                    if not count:
                        raise CheckpointError(
                            f"checkpoint '{self.path}' was cut off while it was read"
                        )
                    memory = memory[count:]
        except OSError as error:
            raise self._unreadable(error) from error

    def _check(self, status: os.stat_result) -> None:
        if (status.st_size, (status.st_ino, status.st_mtime_ns)) != (self.size, self._changed):
            raise CheckpointError(
                f"checkpoint '{self.path}' was replaced or changed since it was opened: load it "
                "again"
            )

    def _unreadable(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"checkpoint '{self.path}' can't be read: {error.strerror or error}")


def sound_bools(tensor: Tensor) -> Tensor:
    """Bytes other than 0 and 1 in a bool tensor become True: operations on them would give
    anything."""
    if tensor.dtype is torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
        return tensor.view(torch.uint8).ne(0)
    return tensor
