"""The result of a merge: a checkpoint whose tensors are computed when they are asked for."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..alignment import STATISTICS, Alignment
from ..checkpoints import Checkpoint
from ..errors import CheckpointError, MetanetError
from ..graph import real_parts
from ..tracing import is_integer
from ._average import average
from ._part import Part
from ._range import largest_of, stored_as
from ._sources import Source
from ._tensor_options import TensorOptions

_WIDE = {torch.float64, torch.complex128}


class Merged(Checkpoint):
    """What :func:`metanet.merge` returns: names -> merged tensors.

    Each is computed when it is asked for.

    ``save_checkpoint`` and ``load_state_dict`` take it as they take any checkpoint.

    Attributes:
        recipe: method, options, inputs and all else that says how to make it again; JSON.
        report: what the method, the alignment and the repair have to tell, by name.
        alignments: of the models, in their order, ``None`` for those that stayed; empty without
            ``align``.
        provenance: which tensors are tied, were left out, or are one model's.
    """

    recipe: Mapping[str, Any]
    report: Mapping[str, Any]
    alignments: Sequence[Alignment | None]
    provenance: "Provenance"

    @classmethod
    def of(
        cls,
        computed: Checkpoint,
        recipe: Mapping[str, Any],
        report: Mapping[str, Any],
        alignments: Sequence[Alignment | None],
        provenance: "Provenance",
    ) -> "Merged":
        """A computed checkpoint with what is to be told of it."""
        out = cls(
            computed.path,
            computed.__getitem__,
            computed.shapes,
            computed.dtypes,
            computed.metadata,
            tied=provenance.first,
        )
        out.recipe, out.report, out.alignments = recipe, report, tuple(alignments)
        out.provenance = provenance
        return out


@dataclass(frozen=True)
class Provenance:
    """What whoever writes a configuration beside the result must know of its tensors.

    Attributes:
        first: name -> the first name of the same tensor.
        dropped: names that only some inputs store, because they hold the values of another tensor.
        untied: names that are tied to others in some inputs only, and to none in the result.
        taken: name -> the model, or ``"base"``, whose tensor it is as it was.
    """

    first: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    untied: tuple[str, ...] = ()
    taken: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensors:
    """Computes one tensor of the result.

    Attributes:
        models, base: the checkpoints.
        sources: of every tensor.
        first: name -> the first name of its tensor: tied names are computed once, by the options of
            all their names.
        options: of the method.
        prepared: what its ``prepare`` returned.
        dtype: what is computed in; float32, or float64 where a tensor has it, for ``None``.
        dtypes: of the result.
        shapes: of the result.
        overflow: what is done about results beyond their dtype: see :func:`._range.stored_as`.
        report: what there is to tell goes here.
        waiting: tied tensors that were computed for one of their names, and the names that have not
            asked yet.
    """

    models: Sequence[Checkpoint]
    base: Checkpoint | None
    sources: Mapping[str, Source]
    first: Mapping[str, str]
    options: TensorOptions
    prepared: Any
    dtype: torch.dtype | None
    dtypes: Mapping[str, torch.dtype]
    shapes: Mapping[str, torch.Size]
    seed: int
    device: torch.device
    overflow: str = "error"
    report: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, tuple[Tensor, set[str]]] = field(default_factory=dict)

    def __call__(self, name: str) -> Tensor:
        first = self.first.get(name, name)
        names = self._groups.get(first, ())
        if len(names) < 2:
            return self._computed(name)
        tensor, asking = self.waiting.pop(first, (None, set()))
        if tensor is None or name not in asking:
            tensor = self._computed(first)
            asking = set(names)
        others = asking - {name}
        if others:
            self.waiting[first] = tensor, others
        return tensor.clone()

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """First name -> all names of the result that are tied to it."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name in self.sources:
            groups[self.first.get(name, name)].append(name)
        return groups

    def _computed(self, name: str) -> Tensor:
        label = self.options.taken(name)
        if label is not None:
            return self._taken(name, label)
        read = self._read(name)
        if is_integer(read.like.dtype):
            return _integers(name, read, self.models)
        is_complex = read.like.is_complex()
        part = self._part(name, read)
        del read  # as stored, the tensors are not needed any more
        options = self.options.of(name, part.numbers)
        if self._is_statistic(name):
            merged = _averaged(part, options)
        else:
            merged = self.options.method.function(part, **options)
        largest = largest_of(merged)
        self._check(name, merged, part, largest)
        stored = self._stored(name, merged, largest)
        return torch.view_as_complex(stored.contiguous()) if is_complex else stored

    def _read(self, name: str) -> "_Read":
        """The tensors of a name, as they are stored."""
        source = self.sources[name]
        models = {}
        for number, own in source.models.items():
            if own in self.models[number]:
                models[number] = self.models[number][own]
        base = self.base if self.base is not None and source.base in self.base else None
        return _Read(models, None if base is None else base[source.base])

    def _part(self, name: str, read: "_Read") -> Part:
        """The tensors of a name as methods compute with them: wide, real, on the device."""
        dtypes = {tensor.dtype for tensor in (*read.models.values(), read.like)}
        wide = self.dtype or (torch.float64 if dtypes & _WIDE else torch.float32)

        def widened(tensor: Tensor) -> Tensor:
            real = real_parts(tensor) if tensor.is_complex() else tensor
            return real.to(self.device, wide)

        return Part(
            name=self.first.get(name, name),
            tensors=tuple(widened(tensor) for tensor in read.models.values()),
            base=None if read.base is None else widened(read.base),
            numbers=tuple(read.models),
            seed=self.seed,
            prepared=self.prepared,
        )

    def _stored(self, name: str, merged: Tensor, largest: float | None = None) -> Tensor:
        """In the dtype of the result; of a complex one, in that of its parts."""
        dtype = self.dtypes[name]
        real = dtype.to_real() if dtype.is_complex else dtype
        return stored_as(real, name, merged, self.overflow, self.report.__setitem__, largest)

    def _is_statistic(self, name: str) -> bool:
        """Whether a tensor is averaged because what models changed of it means nothing.

        Dropping changes of a running variance, or making them larger, may leave it negative.
        Methods that look at the whole network know what to do with statistics.
        """
        method = self.options.method
        return (
            method.base == "required"
            and method.prepare is None
            and name.rpartition(".")[2] in STATISTICS
        )

    def _taken(self, name: str, label: int | str) -> Tensor:
        """The tensor of one model, or of the base, as it is."""
        tensor = self._of_one(name, label)
        if tensor.dtype is self.dtypes[name] or not tensor.is_floating_point():
            return tensor
        return self._stored(name, tensor.float() if tensor.dtype.itemsize < 4 else tensor)

    def _of_one(self, name: str, label: int | str) -> Tensor:
        source = self.sources[name]
        if self.base is not None and label == "base":
            return self.base[source.base]
        if not isinstance(label, int) or label not in source.models:
            raise MetanetError(
                f"{name}: model {label} takes no part in this slice, so that it can't be taken "
                "from it"
            )
        return self.models[label][source.models[label]]

    def _check(self, name: str, merged: Tensor, part: Part, largest: float) -> None:
        """Refuse what is not finite, or of another shape than the result's."""
        method = self.options.method.name
        if not math.isfinite(largest):
            self._check_given(name, part)
            raise MetanetError(
                f"{name}: method {method!r} made NaN or infinite values of finite ones"
            )
        expected = self.shapes[name]
        if merged.ndim == len(expected) + 1:  # of complex tensors the parts
            expected = torch.Size((*expected, 2))
        if merged.shape != expected:
            raise MetanetError(
                f"{name}: method {method!r} made {tuple(merged.shape)}, expected {tuple(expected)}"
            )

    def _check_given(self, name: str, part: Part) -> None:
        """Refuse what was not finite before it was merged."""
        inputs = [
            (tensor, self.models[number].path)
            for number, tensor in zip(part.numbers, part.tensors, strict=True)
        ]
        if part.base is not None and self.base is not None:
            inputs.append((part.base, self.base.path))
        for tensor, path in inputs:
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(
                    f"checkpoint '{path}': {name} has NaN or infinite values; it can't be merged"
                )


@dataclass(frozen=True)
class _Read:
    """Tensors of one name as they are stored, of the models by their numbers, and of the base."""

    models: Mapping[int, Tensor]
    base: Tensor | None

    @property
    def like(self) -> Tensor:
        """The one whose kind the result is of."""
        return next(iter(self.models.values())) if self.base is None else self.base


def _averaged(part: Part, options: Mapping[str, Any]) -> Tensor:
    """The average by the method's weights; all alike where these are no shares."""
    alike = [1.0] * len(part.tensors)
    weights = options.get("weights", alike)
    are_shares = min(weights) >= 0 < max(weights)
    return average(part.tensors, weights if are_shares else alike, "linear")


def _integers(name: str, read: _Read, models: Sequence[Checkpoint]) -> Tensor:
    """Integers are not averaged: tables that all have alike stay, of counters the first model's (or
    base's) count.

    Raises:
        CheckpointError: tables that differ, as those of quantised weights do.
    """
    for number, tensor in read.models.items():
        if tensor.ndim and not torch.equal(tensor, read.like):
            raise CheckpointError(
                f"{name} holds integers ({tensor.dtype}) that differ in '{models[number].path}': "
                "weights that are quantised can't be merged, dequantise them first. If it is "
                f"another table, say whose to take: overrides={{{name!r}: {{'take': 0}}}}"
            )
    return read.like
