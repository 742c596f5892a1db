"""What ``load_checkpoint`` returns: tensors by name, read when asked for."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor


class Checkpoint(Mapping[str, Tensor]):
    """A read-only mapping from names to tensors (on the CPU) that reads a tensor when it is asked for.

    Every reading gives a tensor of its own: changing it in place changes neither the file nor the next reading.
    The order of the names is the file's, which need not be that of the layers: safetensors files are sorted.

    Args:
        path: the file, for messages.
        read: gives the tensor of a name.
        shapes: shape by name; its names are the mapping's.
        dtypes: dtype by name.
        metadata: what the file says beside its tensors.
        skipped: names of entries that are no tensors and were left out.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[str], Tensor],
        shapes: Mapping[str, torch.Size],
        dtypes: Mapping[str, torch.dtype],
        metadata: Mapping[str, Any] | None = None,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.metadata = dict(metadata or {})
        self.skipped = skipped
        self._read = read
        self._shapes = dict(shapes)
        self._dtypes = dict(dtypes)
        self._stored = {name: name for name in self._shapes}  # name here -> name in the file

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Shape by name, without reading data."""
        return MappingProxyType(self._shapes)

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Dtype by name, without reading data."""
        return MappingProxyType(self._dtypes)

    def rename(self, names: Mapping[str, str]) -> "Checkpoint":
        """The same tensors under other names: ``names`` maps each present name to its new one."""
        new = Checkpoint(
            self.path,
            self._read,
            {names[name]: shape for name, shape in self._shapes.items()},
            {names[name]: dtype for name, dtype in self._dtypes.items()},
            self.metadata,
            self.skipped,
        )
        new._stored = {names[name]: stored for name, stored in self._stored.items()}
        return new

    def __getitem__(self, name: str) -> Tensor:
        return self._read(self._stored[name]).clone()  # what is read may be a view of the mapped file

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        values = sum(shape.numel() for shape in self._shapes.values())
        return f"Checkpoint({str(self.path)!r}: {len(self)} tensors, {values:,} values)"
