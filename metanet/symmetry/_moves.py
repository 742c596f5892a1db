"""How tensors move along axis expressions, by one permutation for each group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._axes import Axis, Choice, Concat, Fixed, Leaf, Product, chosen, walk
from ._records import Group


@dataclass(frozen=True)
class Mover:
    """Moves tensors.

    Attributes:
        groups: by name.
        elements: of the groups that move, with one leading axis per key.
    """

    groups: Mapping[str, Group]
    elements: Mapping[str, Tensor]

    def is_plain(self, axis: Axis) -> bool:
        """Whether positions along the axis depend on nothing else."""
        return not any(map(self._depends, walk(axis)))

    def _depends(self, part: Axis) -> bool:
        """Whether positions along a part of an axis depend on those along another."""
        if isinstance(part, Leaf):
            return bool(self.groups[part.group].keys)
        return isinstance(part, Choice)

    def positions(self, axis: Axis) -> Tensor:
        """Old position of every new position along an axis of groups without keys."""
        match axis:
            case Leaf(group) if group in self.elements:
                return self.elements[group]
            case Product(parts):
                out = torch.zeros(1, dtype=torch.long)
                for part in parts:
                    out = (out[:, None] * part.size + self.positions(part)).flatten()
                return out
            case Concat(parts):
                start = 0
                pieces: list[Tensor] = []
                for part in parts:
                    pieces.append(start + self.positions(part))
                    start += part.size
                return torch.cat(pieces)
        return torch.arange(axis.size)

    def move(self, tensor: Tensor, axes: Sequence[tuple[Axis, bool]], lead: int) -> Tensor:
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
                return self.move(unfolded, inside, lead).reshape(tensor.shape)
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
            moved.append(self.move(piece, inside, lead))
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
            keys = [lead + places[key][0] for key in self.groups[group].keys]
            moved = [i for i in places[group] if axes[i][1]]
            for i in moved:
                tensor = _permute(tensor, lead + i, element, keys)
        return tensor

    def _depth(self, group: str) -> int:
        return len(self.groups[group].keys)


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


def bits_of(dtype: torch.dtype) -> torch.dtype | None:
    """Integers of the same size as numbers of a dtype that knows few operations (float8,
    complex32)."""
    if dtype == torch.complex32:
        return torch.int32
    return torch.uint8 if dtype.itemsize == 1 and dtype.is_floating_point else None
