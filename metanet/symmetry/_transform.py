"""One element of the symmetry group, acting on state dicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import load_checkpoint, save_checkpoint
from ..errors import CheckpointError, MetanetError
from ._axes import Axis, Concat, Fixed, Leaf, Product, leaves_of
from ._spec import SymmetrySpec


@dataclass(frozen=True, eq=False)
class Transform:
    """A relabelling of the neurons of every group: ``t(state_dict)`` is a new state dict with the same function.

    Entry ``i`` of the new axis is entry ``element[i]`` of the old one. Elements of keyed groups have one leading axis
    per key and are looked up by the *new* index of the key.

    Attributes:
        spec: whose symmetries these are.
        elements: for each group ``(*sizes of its keys, size)`` int64; groups left out are not moved.
    """

    spec: SymmetrySpec
    elements: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, element in self.elements.items():
            group = self.spec[name]
            shape = (*(self.spec[k].size for k in group.keys), group.size)
            if tuple(element.shape) != shape:
                raise MetanetError(f"element of group {name!r} has shape {tuple(element.shape)}, expected {shape}")
            if not torch.equal(element.sort(-1).values, torch.arange(group.size).expand(shape)):
                raise MetanetError(f"element of group {name!r} is not a permutation of {group.size} items")

    def element(self, group: str) -> Tensor:
        """The permutation of a group: ``(*sizes of its keys, size)`` int64."""
        g = self.spec[group]
        if group in self.elements:
            return self.elements[group]
        return torch.arange(g.size).expand(*(self.spec[k].size for k in g.keys), g.size)

    def __call__(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Apply to a state dict, or to many stacked ones (a leading axis on every tensor).

        Entries that the spec does not know (integer buffers) are passed on. Device and dtype are kept.

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
        known = self.spec.tensors[name]
        if tuple(tensor.shape[-len(known.shape) or tensor.ndim :]) != known.shape:
            raise CheckpointError(
                f"{name} is {tuple(tensor.shape)}, expected {known.shape} (with or without a stacking axis)"
            )
        lead = tensor.ndim - len(known.shape)
        moved = [
            n for n, axis in enumerate(known.axes)
            if (axes is None or n in axes) and any(leaf.group in self.elements for leaf in leaves_of(axis))
        ]  # fmt: skip
        if not any(self.spec[leaf.group].keys for n in moved for leaf in leaves_of(known.axes[n])):
            for n in moved:
                tensor = tensor.index_select(lead + n, self._positions(known.axes[n], {}).to(tensor.device))
            return tensor
        return self._gather(tensor, known.axes, set(moved), lead)

    def _positions(self, axis: Axis, digits: Mapping[str, Tensor]) -> Tensor:
        """Old position of every new position along an axis, for given new digits of the keys."""
        match axis:
            case Fixed(size):
                return torch.arange(size)
            case Leaf(group):
                if group not in self.elements:
                    return torch.arange(axis.size)
                element = self.element(group)
                return element[tuple(digits[k] for k in self.spec[group].keys)]
            case Product(parts):
                out = torch.zeros(1, dtype=torch.long)
                for part in parts:
                    own = self._positions(part, digits)
                    out = (out[..., :, None] * part.size + own[..., None, :]).flatten(-2)
                return out
            case Concat(parts):
                starts = torch.tensor([0, *(p.size for p in parts)]).cumsum(0)
                return torch.cat([s + self._positions(p, digits) for s, p in zip(starts, parts, strict=False)], -1)

    def _gather(self, tensor: Tensor, axes: tuple[Axis, ...], moved: set[int], lead: int) -> Tensor:
        """All axes as one long product: every factor's old digit from the new digits of itself and of its keys."""
        for n, axis in enumerate(axes):
            if isinstance(axis, Concat):  # segment by segment, so that what follows sees products only
                sizes = [p.size for p in axis.parts]
                parts = tensor.split(sizes, lead + n)
                split = [(*axes[:n], p, *axes[n + 1 :]) for p in axis.parts]
                return torch.cat([self._gather(t, a, moved, lead) for t, a in zip(parts, split, strict=True)], lead + n)
        factors = [
            (n, f) for n, axis in enumerate(axes) for f in (axis.parts if isinstance(axis, Product) else (axis,))
        ]
        if any(isinstance(f, (Concat, Product)) for _, f in factors):
            raise NotImplementedError("a keyed group inside a concatenation inside a product")
        sizes = [f.size for _, f in factors]
        digits = [torch.arange(s).view(*(-1 if i == j else 1 for j in range(len(sizes)))) for i, s in enumerate(sizes)]
        where = {f.group: i for i, (_, f) in enumerate(factors) if isinstance(f, Leaf)}
        flat = torch.zeros([1] * len(sizes), dtype=torch.long)
        for i, (n, factor) in enumerate(factors):
            old = digits[i]
            if n in moved and isinstance(factor, Leaf) and factor.group in self.elements:
                keys = self.spec[factor.group].keys
                old = self.element(factor.group)[(*(digits[where[k]] for k in keys), digits[i])]
            flat = flat * factor.size + old
        flat = flat.expand(sizes).flatten().to(tensor.device)
        return tensor.flatten(lead).index_select(lead, flat).view(tensor.shape)

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
        """For every combination of new key digits the old ones, as index arrays."""
        keys = self.spec[name].keys
        return torch.meshgrid(*(self.element(k) for k in keys), indexing="ij") if keys else ()

    def __matmul__(self, other: "Transform") -> "Transform":
        """``(t1 @ t2)(sd) == t1(t2(sd))``."""
        if other.spec is not self.spec and other.spec != self.spec:
            raise MetanetError("transforms of different architectures cannot be composed")
        out = {}
        for name in dict.fromkeys((*self.elements, *other.elements)):
            inner = other.element(name)[self._old_keys(name)] if self.spec[name].keys else other.element(name)
            out[name] = inner.gather(-1, self.element(name).expand(inner.shape))
        return Transform(self.spec, out)

    def save(self, path: str | Path) -> None:
        """Write as safetensors, with the spec as metadata."""
        save_checkpoint(
            path, {n: e.contiguous() for n, e in self.elements.items()}, metadata={"spec": self.spec.to_json()}
        )

    @classmethod
    def load(cls, path: str | Path) -> "Transform":
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or holds no transform.
        """
        file = load_checkpoint(path)
        if "spec" not in file.metadata:
            raise CheckpointError(f"{path} is not a saved transform: its metadata has no symmetry spec")
        return cls(SymmetrySpec.from_json(file.metadata["spec"]), dict(file))
