"""One element of the symmetry group, acting on state dicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from ..documents import Document, validated
from ..errors import CheckpointError, MetanetError, brief
from ._axes import Axis, Concat, Fixed, Leaf, Product, chosen, leaves_of
from ._spec import SymmetrySpec


class _Metadata(Document):
    """What a saved transform says beside its elements."""

    spec: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Transform:
    """A relabelling of the neurons of every group: ``t(state_dict)`` is a new state dict with the
    same function.

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
        moved = [
            n
            for n, axis in enumerate(described.axes)
            if (axes is None or n in axes)
            and any(leaf.group in self.elements for leaf in leaves_of(axis))
        ]
        if not moved:
            return tensor
        integers = _bits_of(tensor.dtype)
        if integers is not None:
            return self.apply(name, tensor.resolve_conj().view(integers), axes).view(tensor.dtype)
        if all(_is_plain(described.axes[n], self.spec) for n in moved):
            for n in moved:
                tensor = tensor.index_select(
                    lead + n, self._positions(described.axes[n]).to(tensor.device)
                )
            return tensor
        return self._move(
            tensor, [(axis, n in moved) for n, axis in enumerate(described.axes)], lead
        )

    def permutation(self, axis: Axis) -> Tensor:
        """Old position of every new position along an axis that holds the keys of all its groups:
        ``(size,)`` int64."""
        return self._move(torch.arange(axis.size), [(axis, True)], 0)

    def _positions(self, axis: Axis) -> Tensor:
        """Old position of every new position along an axis of groups without keys."""
        match axis:
            case Leaf(group) if group in self.elements:
                return self.elements[group]
            case Product(parts):
                out = torch.zeros(1, dtype=torch.long)
                for part in parts:
                    out = (out[:, None] * part.size + self._positions(part)).flatten()
                return out
            case Concat(parts):
                starts = torch.tensor([0, *(p.size for p in parts)]).cumsum(0)
                return torch.cat(
                    [s + self._positions(p) for s, p in zip(starts, parts, strict=False)]
                )
        return torch.arange(axis.size)

    def _move(self, tensor: Tensor, axes: Sequence[tuple[Axis, bool]], lead: int) -> Tensor:
        """Move along several axes whose elements may depend on each other's positions.

        ``(q | k) x dims`` is moved as two tensors ``q x dims`` and ``k x dims``, ``heads x dims`` as
        one of two axes, of which heads come first, as dims are looked up by their new positions.

        Args:
            tensor: with ``lead`` axes in front that nothing happens to.
            axes: one expression for each other axis, and whether to move along it.
        """
        for i, (axis, moves) in enumerate(axes):
            if isinstance(axis, Concat):
                return self._move_parts(tensor, axes, i, lead)
            if isinstance(axis, Product):
                inside = [*axes[:i], *((part, moves) for part in axis.parts), *axes[i + 1 :]]
                unfolded = tensor.reshape(*tensor.shape[:lead], *(a.size for a, _ in inside))
                return self._move(unfolded, inside, lead).reshape(tensor.shape)
        return self._move_groups(tensor, axes, lead)

    def _move_parts(
        self, tensor: Tensor, axes: Sequence[tuple[Axis, bool]], at: int, lead: int
    ) -> Tensor:
        """Part by part of a concatenation, each with what depends on being in that part."""
        concat, moves = axes[at]
        assert isinstance(concat, Concat)
        sizes = [part.size for part in concat.parts]
        moved: list[Tensor] = []
        for n, piece in enumerate(tensor.split(sizes, lead + at)):
            inside = [(chosen(axis, concat.name, n), m) for axis, m in axes]
            inside[at] = (concat.parts[n], moves)
            moved.append(self._move(piece, inside, lead))
        return torch.cat(moved, lead + at)

    def _move_groups(self, tensor: Tensor, axes: Sequence[tuple[Axis, bool]], lead: int) -> Tensor:
        """Move along axes of which each is the items of a group, or fixed."""
        places: dict[str, list[int]] = {}
        for i, (axis, _) in enumerate(axes):
            if isinstance(axis, (Leaf, Fixed)) and axis.group:
                places.setdefault(axis.group, []).append(i)
        # Keys first: an element is looked up by the new index of its keys.
        moving = [group for group in places if group in self.elements]
        for group in sorted(moving, key=self._depth):
            element = self.elements[group].to(tensor.device)
            keys = [lead + places[key][0] for key in self.spec[group].keys]
            for i in places[group]:
                if axes[i][1]:
                    tensor = _permute(tensor, lead + i, element, keys)
        return tensor

    def _depth(self, group: str) -> int:
        return len(self.spec[group].keys)

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
        new = {
            k: torch.arange(n).view([n if i == j else 1 for j in range(len(keys))])
            for i, (k, n) in enumerate(zip(keys, sizes, strict=True))
        }
        old = (self.element(k)[(*(new[key] for key in self.spec[k].keys), new[k])] for k in keys)
        return tuple(o.expand(sizes) for o in old)

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


def _bits_of(dtype: torch.dtype) -> torch.dtype | None:
    """Integers of the same size as numbers of a dtype that knows few operations (float8,
    complex32)."""
    if dtype == torch.complex32:
        return torch.int32
    return torch.uint8 if dtype.itemsize == 1 and dtype.is_floating_point else None


def _is_plain(axis: Axis, spec: SymmetrySpec) -> bool:
    """Whether positions along the axis depend on nothing else."""
    if isinstance(axis, (Product, Concat)):
        return all(_is_plain(p, spec) for p in axis.parts)
    return isinstance(axis, Fixed) or (isinstance(axis, Leaf) and not spec[axis.group].keys)


def _permute(tensor: Tensor, axis: int, element: Tensor, keys: Sequence[int]) -> Tensor:
    """New entry i along an axis is old entry ``element[..., i]``, looked up by positions along the
    axes ``keys``."""
    if not keys:
        return tensor.index_select(axis, element)
    order = sorted(range(element.ndim), key=lambda d: (*keys, axis)[d])
    shape = [1] * tensor.ndim
    for d, n in zip((*keys, axis), element.shape, strict=True):
        shape[d] = n
    return tensor.gather(axis, element.permute(order).reshape(shape).expand(tensor.shape))
