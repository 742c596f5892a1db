"""Bytes of a file by position, straight into a tensor's memory."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError


class FileBytes:
    """A file read piece by piece: it is opened for each piece, so nothing stays mapped or open between two.

    Mapped pages count as the process's memory for as long as the mapping lives; merging models larger than memory needs
    them gone. Goes to other processes by its path, and notices a file that was replaced or changed since.

    Args:
        path: the file; also what messages call it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = path.absolute()  # a process that reads later may stand in another folder
        status = os.stat(self.place)
        self.size, self._changed = status.st_size, (status.st_ino, status.st_mtime_ns)

    def read(self, start: int, count: int) -> bytes:
        """At most ``count`` bytes from ``start`` on, fewer where the file ends."""
        content = bytearray(max(0, min(count, self.size - start)))
        self._fill(memoryview(content), start)
        return bytes(content)

    def tensor(self, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A new contiguous tensor of the bytes from ``start`` on, bit for bit."""
        tensor = torch.empty(tuple(shape), dtype=dtype)
        if tensor.numel():
            self._fill(memoryview(tensor.view(-1).view(torch.uint8).numpy()), start)
        return tensor

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
                        raise CheckpointError(f"checkpoint '{self.path}' was cut off while it was read")
                    memory = memory[count:]
        except OSError as error:
            raise self._unreadable(error) from error

    def _check(self, status: os.stat_result) -> None:
        if (status.st_size, (status.st_ino, status.st_mtime_ns)) != (self.size, self._changed):
            raise CheckpointError(
                f"checkpoint '{self.path}' was replaced or changed since it was opened: load it again"
            )

    def _unreadable(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"checkpoint '{self.path}' can't be read: {error.strerror or error}")
