"""The symmetries of an architecture as a value, and their elements, which act on state dicts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, atomic_write, load_checkpoint, save_checkpoint
from ..documents import Document, read_json, validated
from ..errors import CheckpointError, MetanetError, brief, listed
from ._axes import (
    Axis,
    Fixed,
    Leaf,
    axis_to_json,
    leaves_of,
    mapped,
)
from ._documents import SpecFile, axis_of, check_spec
from ._moves import Mover, bits_of
from ._records import Group, TensorAxes
from ._shown import as_html, as_text, explanation


@dataclass(frozen=True, repr=False)
class SymmetrySpec:
    """The groups of neurons of an architecture, and how every tensor is made of them.

    ``print(spec)`` shows it, ``spec.sample()`` draws a random element of the symmetry group.

    Attributes:
        groups: in the order of the network.
        tensors: every parameter and floating-point or complex buffer, by state dict name, and those
            buffers of integers and bools (masks, index tables) that move with some group.
    """

    groups: tuple[Group, ...]
    tensors: Mapping[str, TensorAxes]

    @cached_property
    def by_name(self) -> Mapping[str, Group]:
        """The groups by name."""
        return {g.name: g for g in self.groups}

    def __getitem__(self, group: str) -> Group:
        try:
            return self.by_name[group]
        except KeyError:
            raise MetanetError(
                f"no group {brief(group)!r}; the groups are {listed(self.by_name)}"
            ) from None

    @cached_property
    def users(self) -> Mapping[str, list[str]]:
        """The tensors that each group acts on."""
        users: dict[str, list[str]] = {}
        for name, tensor in self.tensors.items():
            for group in dict.fromkeys(
                leaf.group for axis in tensor.axes for leaf in leaves_of(axis)
            ):
                users.setdefault(group, []).append(name)
        return users

    def identity(self) -> "Transform":
        """The transform that changes nothing."""
        return Transform(self, {})

    def sample(self, generator: torch.Generator | None = None) -> "Transform":
        """A random transform, uniform over the group.

        Args:
            generator: source of randomness; PyTorch's global one when left out.
        """
        elements = {}
        for group in self.groups:
            if group.kind == "permutation":
                keys = [self[k].size for k in group.keys]
                elements[group.name] = torch.rand(*keys, group.size, generator=generator).argsort(
                    -1
                )
        return Transform(self, elements)

    def holding(self, groups: Mapping[str, str]) -> "SymmetrySpec":
        """The spec in which some groups keep their place.

        Args:
            groups: their names, and why.
        """
        held = tuple(
            replace(g, kind="fixed", keys=(), also=frozenset()) if g.name in groups else g
            for g in self.groups
        )
        tensors = {
            name: replace(tensor, axes=tuple(_held(axis, groups) for axis in tensor.axes))
            for name, tensor in self.tensors.items()
        }
        return SymmetrySpec(held, tensors)

    def explain(self, name: str) -> str:
        """Why the axes of a tensor are as they are.

        Raises:
            MetanetError: no tensor of this name.
        """
        if name not in self.tensors:
            raise MetanetError(
                f"no tensor {brief(name)!r} in this spec; names look like {listed(self.tensors, 3)}"
            )
        return explanation(self, name)

    def __repr__(self) -> str:
        return f"SymmetrySpec({len(self.groups)} groups, {len(self.tensors)} tensors)"

    def _repr_html_(self) -> str:
        """For notebooks: a table of the groups, and one of the tensors that unfolds."""
        return as_html(self)

    def __str__(self) -> str:
        return as_text(self)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        groups = [
            {
                "name": g.name,
                "size": g.size,
                "keys": list(g.keys),
                "kind": g.kind,
                "also": sorted(g.also),
            }
            for g in self.groups
        ]
        tensors = {
            n: {
                "shape": list(t.shape),
                "dtype": t.dtype,
                "axes": [axis_to_json(a) for a in t.axes],
                "tied_to": t.tied_to,
            }
            for n, t in self.tensors.items()
        }
        return {"groups": groups, "tensors": tensors}

    @classmethod
    def from_json(
        cls,
        data: Any,
        place: str = "the symmetry spec",
        *,
        error: type[MetanetError] = MetanetError,
    ) -> "SymmetrySpec":
        """The spec that :meth:`to_json` describes, checked: sizes, groups and shapes fit each
        other.

        Args:
            data: parsed JSON.
            place: how messages name where it comes from.
            error: the class of what is raised.

        Raises:
            MetanetError: it is of another form, or its parts contradict each other.
        """
        file = validated(SpecFile, data, place, error=error)
        groups = tuple(
            Group(name=g.name, size=g.size, keys=tuple(g.keys), kind=g.kind, also=frozenset(g.also))
            for g in file.groups
        )
        tensors = {
            n: TensorAxes(
                shape=tuple(t.shape),
                dtype=t.dtype,
                axes=tuple(map(axis_of, t.axes)),
                tied_to=t.tied_to,
            )
            for n, t in file.tensors.items()
        }
        spec = cls(groups, tensors)
        check_spec(spec, place, error)
        return spec

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        with atomic_write(path) as temporary:
            Path(temporary).write_text(json.dumps(self.to_json(), indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "SymmetrySpec":
        """Read what :meth:`save` wrote.

        Raises:
            MetanetError: the file is missing or no spec.
        """
        return cls.from_json(read_json(path), f"'{path}'")


class _Metadata(Document):
    """What a saved transform says beside its elements."""

    spec: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Transform:
    """A relabelling of the neurons of every group.

    ``t(state_dict)`` is a new state dict with the same function.

    Entry ``i`` of the new axis is entry ``element[i]`` of the old one. Elements of keyed groups
    have one leading axis per key and are looked up by the *new* index of the key.

    Attributes:
        spec: whose symmetries these are.
        elements: for each group ``(*sizes of its keys, size)`` int64; groups left out are not
            moved.
    """

    spec: SymmetrySpec
    elements: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, element in self.elements.items():
            group = self.spec[name]
            shape = (*(self.spec[k].size for k in group.keys), group.size)
            if element.dtype is not torch.int64:
                raise MetanetError(
                    f"element of group {brief(name)!r} is of {element.dtype}, expected torch.int64"
                )
            if group.kind != "permutation":
                raise MetanetError(
                    f"group {brief(name)!r} is {group.kind}: it has no element but the identity"
                )
            if tuple(element.shape) != shape:
                raise MetanetError(
                    f"element of group {brief(name)!r} has shape {tuple(element.shape)}, expected {shape}"
                )
            if not torch.equal(element.sort(-1).values, torch.arange(group.size).expand(shape)):
                raise MetanetError(
                    f"element of group {brief(name)!r} is not a permutation of {group.size} items"
                )

    @property
    def _mover(self) -> Mover:
        return Mover(self.spec.by_name, self.elements)

    def element(self, group: str) -> Tensor:
        """The permutation of a group: ``(*sizes of its keys, size)`` int64."""
        g = self.spec[group]
        if group in self.elements:
            return self.elements[group]
        return torch.arange(g.size).expand(*(self.spec[k].size for k in g.keys), g.size)

    def __call__(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Apply to a state dict, or to many stacked ones (a leading axis on every tensor).

        Entries that the spec does not know (integer buffers that stay) are passed on. Device and
        dtype are kept.

        Raises:
            CheckpointError: a tensor has another shape than the architecture's.
        """
        return {name: self.apply(name, tensor) for name, tensor in state.items()}

    def apply(self, name: str, tensor: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
        """Apply to one tensor by its name.

        Args:
            axes: move only along these axes: an illegal relabelling, for sensitivity tests.
        """
        if name not in self.spec.tensors:
            return tensor
        described = self.spec.tensors[name]
        if tuple(tensor.shape[-len(described.shape) or tensor.ndim :]) != described.shape:
            raise CheckpointError(
                f"{name} is {tuple(tensor.shape)}, expected {described.shape} "
                "(with or without a stacking axis)"
            )
        lead = tensor.ndim - len(described.shape)
        places = range(len(described.axes)) if axes is None else axes
        moved = [n for n, axis in enumerate(described.axes) if n in places and self._moves(axis)]
        if not moved:
            return tensor
        integers = bits_of(tensor.dtype)
        if integers is not None:
            return self.apply(name, tensor.resolve_conj().view(integers), axes).view(tensor.dtype)
        if all(self._mover.is_plain(described.axes[n]) for n in moved):
            for n in moved:
                tensor = tensor.index_select(
                    lead + n, self._mover.positions(described.axes[n]).to(tensor.device)
                )
            return tensor
        return self._mover.move(
            tensor, [(axis, n in moved) for n, axis in enumerate(described.axes)], lead
        )

    def _moves(self, axis: Axis) -> bool:
        """Whether an element of this transform acts on an axis."""
        return any(leaf.group in self.elements for leaf in leaves_of(axis))

    def permutation(self, axis: Axis) -> Tensor:
        """Old position of every new position along an axis that holds the keys of all its groups:
        ``(size,)`` int64."""
        return self._mover.move(torch.arange(axis.size), [(axis, True)], 0)

    def inverse(self) -> "Transform":
        """``t.inverse()(t(sd))`` is ``sd``."""
        out = {}
        for name, element in self.elements.items():
            keys = self._old_keys(name)
            result = torch.empty_like(element)
            result[keys] = element.argsort(-1)
            out[name] = result
        return Transform(self.spec, out)

    def _old_keys(self, name: str) -> tuple[Tensor, ...]:
        """For every combination of new key positions the old ones, as index arrays."""
        keys = self.spec[name].keys
        sizes = [self.spec[k].size for k in keys]
        # keys of sizes 2 and 3: index arrays of shape (2, 3), as of all pairs
        ranges = [torch.arange(n) for n in sizes]
        new = dict(zip(keys, torch.meshgrid(ranges, indexing="ij"), strict=True)) if keys else {}
        old: list[Tensor] = []
        for key in keys:
            outer = [new[each] for each in self.spec[key].keys]
            old.append(self.element(key)[(*outer, new[key])])
        return tuple(old)

    def __matmul__(self, other: "Transform") -> "Transform":
        """``(t1 @ t2)(sd) == t1(t2(sd))``."""
        if other.spec is not self.spec and other.spec != self.spec:
            raise MetanetError("transforms of different architectures cannot be composed")
        out = {}
        for name in dict.fromkeys((*self.elements, *other.elements)):
            inner = (
                other.element(name)[self._old_keys(name)]
                if self.spec[name].keys
                else other.element(name)
            )
            out[name] = inner.gather(-1, self.element(name).expand(inner.shape))
        return Transform(self.spec, out)

    def save(self, path: str | Path) -> None:
        """Write as safetensors, with the spec as metadata."""
        save_checkpoint(
            path,
            {n: e.contiguous() for n, e in self.elements.items()},
            metadata={"spec": self.spec.to_json()},
        )

    @classmethod
    def load(cls, path: str | Path) -> "Transform":
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or holds no transform.
        """
        file = load_checkpoint(path, unwrap=False)
        metadata = validated(
            _Metadata,
            file.metadata,
            f"'{path}' is not a saved transform: its metadata",
            error=CheckpointError,
        )
        return cls.of_file(metadata.spec, file)

    @classmethod
    def of_file(cls, spec: Any, file: Checkpoint) -> "Transform":
        """The transform whose spec is parsed JSON and whose elements are a file's tensors.

        Raises:
            CheckpointError: no spec, or elements that are none of its groups'.
        """
        spec = SymmetrySpec.from_json(
            spec, f"the symmetry spec in '{file.path}'", error=CheckpointError
        )
        try:
            return cls(spec, dict(file))
        except MetanetError as error:
            raise CheckpointError(f"'{file.path}': {error}") from error


def _held(axis: Axis, groups: Mapping[str, str]) -> Axis:
    """The axis with some groups fixed."""

    def held(part: Leaf | Fixed) -> Axis:
        if isinstance(part, Leaf) and part.group in groups:
            return Fixed(part.size, groups[part.group], part.group)
        return part

    return mapped(axis, held)
