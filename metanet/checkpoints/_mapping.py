"""What ``load_checkpoint`` returns: tensors by name, read when asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import CheckpointError, MetanetError
from ._derived import Change, Derived
from ._fit import Described, check, describe, match


def shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> the first name of the same memory.

    Of tensors that share all of theirs with another.
    """
    first: dict[tuple, str] = {}
    out = {}
    for name, tensor in tensors.items():
        if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel():
            view = tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
            out[name] = first.setdefault((tensor.untyped_storage().data_ptr(), *view), name)
    several = {one for name, one in out.items() if name != one}
    return {name: one for name, one in out.items() if one in several}


class Checkpoint(Mapping[str, Tensor]):
    """A read-only mapping from names to tensors.

    A tensor is read, onto the CPU, when it is asked for.

    Every reading gives a tensor of its own: changing it in place changes neither the file nor the
    next reading. The order of the names is the file's, which need not be that of the layers: most
    safetensors files are sorted.

    What is computed tensor by tensor can be one too, with a ``read`` that computes:
    ``save_checkpoint`` then holds no more than one tensor at a time.

    Args:
        path: the file, for messages.
        read: gives the tensor of a name, in memory of its own; pickles if the checkpoint goes to
            other processes.
        shapes: shape by name; its names are the mapping's.
        dtypes: dtype by name.
        metadata: what the file says beside its tensors.
        skipped: names of entries that were left out: those that are no tensors.
        foreign: full names of the classes and functions that inert placeholders stand for.
        tied: name -> the first name that shares its memory, in files and state dicts that keep
            that.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[str], Tensor],
        shapes: Mapping[str, torch.Size],
        dtypes: Mapping[str, torch.dtype],
        metadata: Mapping[str, Any] | None = None,
        skipped: Iterable[str] = (),
        foreign: Iterable[str] = (),
        tied: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.metadata = dict(metadata or {})
        self.skipped = tuple(skipped)
        self.foreign = tuple(foreign)
        self._read = read
        self._shapes = dict(shapes)
        self._dtypes = dict(dtypes)
        self._stored = {name: name for name in self._shapes}  # name here -> name in the file
        self._tied = dict(tied)  # by names in the file

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Shape by name, without reading data."""
        return MappingProxyType(self._shapes)

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Dtype by name, without reading data."""
        return MappingProxyType(self._dtypes)

    @property
    def sources(self) -> Mapping[str, str]:
        """The name that ``read`` is asked for, by each name: renaming and fitting change the latter
        only."""
        return MappingProxyType(self._stored)

    @property
    def tied(self) -> Mapping[str, str]:
        """Name -> the first name of the same memory.

        Of tensors that share all of theirs with another.
        """
        first: dict[str, str] = {}
        shared = {
            name: self._tied[stored]
            for name, stored in self._stored.items()
            if stored in self._tied
        }
        return {name: first.setdefault(one, name) for name, one in shared.items()}

    def rename(self, names: Mapping[str, str]) -> "Checkpoint":
        """The same tensors under other names: ``names`` maps each present name to its new one.

        Raises:
            CheckpointError: two tensors would have one name.
        """
        if len({names[name] for name in self._stored}) < len(self):
            raise CheckpointError(f"checkpoint '{self.path}': two tensors would have one name")
        return self.select({names[name]: name for name in self._stored})

    def select(self, names: Mapping[str, str]) -> "Checkpoint":
        """Some of the tensors, under names of one's own: new name -> present name."""
        return self._select(names, self.skipped)

    def mapped(
        self,
        change: Change,
        names: Mapping[str, str] | None = None,
        *,
        shapes: Mapping[str, torch.Size] | None = None,
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> "Checkpoint":
        """A checkpoint whose tensors are made of these, each when it is asked for.

        >>> import torch
        >>> pair = Checkpoint(Path("pair"), lambda name: torch.ones(2), {"w": torch.Size([2])},
        ...     {"w": torch.float32})
        >>> pair.mapped(lambda name, tensor: 3 * tensor, {"v": "w"})["v"]
        tensor([3., 3.])

        Args:
            change: ``change(name, tensor)``, given the new name and the tensor in memory of its
                own; pickles if the checkpoint goes to other processes.
            names: new name -> present name; as they are when left out.
            shapes, dtypes: by new name, where they change.
        """
        present = {name: name for name in self._stored} if names is None else names
        stored = {new: self._stored[name] for new, name in present.items()}
        return Checkpoint(
            self.path,
            Derived(self._read, stored, change),
            shapes or {new: self._shapes[name] for new, name in present.items()},
            dtypes or {new: self._dtypes[name] for new, name in present.items()},
            self.metadata,
            self.skipped,
            self.foreign,
        )

    def fit(
        self,
        expected: Mapping[str, Any],
        *,
        prefix: str | None = None,
        tied: Mapping[str, str] | None = None,
        extra: Literal["refuse", "drop"] = "refuse",
        dtypes: Literal["kind", "exact", "any"] = "kind",
    ) -> "Checkpoint":
        """This checkpoint with the names of a network, in their order, or an error that lists what
        differs.

        Wrappers put one prefix before all names of a network (``model.`` in a LightningModule),
        base models lack the one that networks with a head have (``bert.``). The prefix that brings
        most names together is taken off or put on; names outside a prefix that is taken off belong
        to something else and go to ``skipped``.

        Args:
            expected: names with tensors or shapes, such as ``model.state_dict()`` (meta tensors do)
                or another checkpoint, of which no data is read.
            prefix: the one to take off, where several parts of the checkpoint would fit; ``""``
                leaves the names.
            tied: name -> name with the same values; a name missing here is read under one that it
                is tied to.
            extra: whether tensors that are not expected are an error or go to ``skipped``.
            dtypes: what must agree where ``expected`` has dtypes: floating, integer, bool or
                complex (``"kind"``), the dtype itself (``"exact"``), or nothing (``"any"``).

        Raises:
            CheckpointError: several prefixes fit equally well, or names, shapes or dtypes differ.
        """
        if extra not in ("refuse", "drop"):
            raise MetanetError(f"extra={extra!r}: give one of refuse, drop")
        wanted = expected._described() if isinstance(expected, Checkpoint) else describe(expected)
        present = match(self.path, self._stored, wanted, prefix)  # by the network's names
        stored = _with_tied(wanted, present, tied or {})
        used = set(stored.values())
        unexpected = {
            name: here for name, here in present.items() if name not in wanted and here not in used
        }
        own = self._described()
        fitting = {name: own[here] for name, here in stored.items()}
        surplus = {name: own[here] for name, here in unexpected.items()}
        problem = check(fitting, wanted, surplus if extra == "refuse" else {}, dtypes)
        if problem:
            raise CheckpointError(f"checkpoint '{self.path}' does not fit the network:\n{problem}")
        inside = set(present.values())
        outside = [name for name in self._stored if name not in inside]
        return self._select(stored, (*self.skipped, *outside, *unexpected.values()))

    def _described(self) -> dict[str, Described]:
        return {name: Described(shape, self._dtypes[name]) for name, shape in self._shapes.items()}

    def _select(self, names: Mapping[str, str], skipped: Iterable[str]) -> "Checkpoint":
        """New name -> present name, as a checkpoint."""
        new = Checkpoint(
            self.path,
            self._read,
            {new: self._shapes[name] for new, name in names.items()},
            {new: self._dtypes[name] for new, name in names.items()},
            self.metadata,
            skipped,
            self.foreign,
            self._tied,
        )
        new._stored = {new: self._stored[name] for new, name in names.items()}
        return new

    def __getitem__(self, name: str) -> Tensor:
        return self._read(self._stored[name])

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        values = sum(shape.numel() for shape in self._shapes.values())
        return f"Checkpoint({str(self.path)!r}: {len(self)} tensors, {values:,} values)"


def _with_tied(
    wanted: Iterable[str], present: Mapping[str, str], tied: Mapping[str, str]
) -> dict[str, str]:
    """Expected name -> present name, where a missing one is read under one that it is tied to.

    Expected ``emb, head``, tied to one another, of which a file has ``emb``: both are read from
    there.
    """
    of_tensor: dict[str, str] = {}
    for name, here in present.items():
        of_tensor.setdefault(tied.get(name, name), here)
    stored = {}
    for name in wanted:
        tensor = tied.get(name, name)
        if name in present:
            stored[name] = present[name]
        elif tensor in of_tensor:
            stored[name] = of_tensor[tensor]
    return stored
