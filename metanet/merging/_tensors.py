"""The result of a merge: a checkpoint whose tensors are computed when they are asked for."""

import math
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
    """What :func:`metanet.merge` returns: names -> merged tensors, each computed when it is asked
    for.

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
        tensor, left = self.waiting.pop(first, (None, set()))
        if tensor is None or name not in left:
            tensor, left = self._computed(first), set(names)
        if left := left - {name}:
            self.waiting[first] = tensor, left
        return tensor.clone()

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """First name -> all names of the result that are tied to it."""
        groups: dict[str, list[str]] = {}
        for name in self.sources:
            groups.setdefault(self.first.get(name, name), []).append(name)
        return groups

    def _computed(self, name: str) -> Tensor:
        source = self.sources[name]
        taken = self.options.taken(name)
        if taken is not None:
            return self._taken(name, taken)
        read = {k: self.models[k][n] for k, n in source.models.items() if n in self.models[k]}
        base = (
            self.base[source.base] if self.base is not None and source.base in self.base else None
        )
        stored = next(iter(read.values())) if base is None else base
        if is_integer(stored.dtype):
            return _integers(name, stored, read, self.models)
        stored_dtypes = {t.dtype for t in (*read.values(), stored)}
        wide = self.dtype or (torch.float64 if stored_dtypes & _WIDE else torch.float32)
        complex_ = stored.is_complex()

        def widened(tensor: Tensor) -> Tensor:
            tensor = real_parts(tensor) if complex_ else tensor
            return tensor.to(self.device, wide)

        part = Part(
            self.first.get(name, name),
            tuple(widened(t) for t in read.values()),
            None if base is None else widened(base),
            tuple(read),
            self.seed,
            self.prepared,
        )
        options = self.options.of(name, part.numbers)
        del read, base, stored  # as stored, they are not needed any more
        merged = (
            _averaged(part, options)
            if self._is_statistic(name)
            else self.options.method.function(part, **options)
        )
        largest = largest_of(merged)
        self._check(name, merged, part, largest)
        if complex_:
            return torch.view_as_complex(self._stored(name, merged, largest).contiguous())
        return self._stored(name, merged, largest)

    def _stored(self, name: str, merged: Tensor, largest: float | None = None) -> Tensor:
        """In the dtype of the result; of a complex one, in that of its parts."""
        dtype = self.dtypes[name].to_real() if self.dtypes[name].is_complex else self.dtypes[name]
        return stored_as(dtype, name, merged, self.overflow, self.report.__setitem__, largest)

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

    def _taken(self, name: str, taken: int | str) -> Tensor:
        source = self.sources[name]
        if taken != "base" and taken not in source.models:
            raise MetanetError(
                f"{name}: model {taken} takes no part in this slice, so that it can't be taken from it"
            )
        tensor = (
            self.base[source.base] if taken == "base" else self.models[taken][source.models[taken]]
        )
        if tensor.dtype is self.dtypes[name] or not tensor.is_floating_point():
            return tensor
        return self._stored(name, tensor.float() if tensor.dtype.itemsize < 4 else tensor)

    def _check(self, name: str, merged: Tensor, part: Part, largest: float) -> None:
        if not math.isfinite(largest):
            given = {**dict(zip(part.numbers, part.tensors, strict=True)), "base": part.base}
            for who, tensor in given.items():
                if tensor is not None and not bool(torch.isfinite(tensor).all()):
                    path = self.base.path if who == "base" else self.models[who].path
                    raise CheckpointError(
                        f"checkpoint '{path}': {name} has NaN or infinite values; it can't be merged"
                    )
            raise MetanetError(
                f"{name}: method {self.options.method.name!r} made NaN or infinite values of finite ones"
            )
        expected = (
            self.shapes[name] + (2,)
            if merged.ndim == len(self.shapes[name]) + 1
            else self.shapes[name]
        )
        if merged.shape != expected:
            raise MetanetError(
                f"{name}: method {self.options.method.name!r} made {tuple(merged.shape)}, expected {tuple(expected)}"
            )


def _averaged(part: Part, options: Mapping[str, Any]) -> Tensor:
    """The average by the method's weights; all alike where these are no shares."""
    alike = [1.0] * len(part.tensors)
    weights = options.get("weights", alike)
    are_shares = min(weights) >= 0 < max(weights)
    return average(part.tensors, weights if are_shares else alike, "linear")


def _integers(
    name: str, stored: Tensor, read: Mapping[int, Tensor], models: Sequence[Checkpoint]
) -> Tensor:
    """Integers are not averaged: tables that all have alike stay, of counters the first model's (or
    base's) count.

    Raises:
        CheckpointError: tables that differ, as those of quantised weights do.
    """
    for number, tensor in read.items():
        if tensor.ndim and not torch.equal(tensor, stored):
            raise CheckpointError(
                f"{name} holds integers ({tensor.dtype}) that differ in '{models[number].path}': weights that are "
                f"quantised can't be merged, dequantise them first. If it is another table, say whose to take: "
                f"overrides={{{name!r}: {{'take': 0}}}}"
            )
    return stored
