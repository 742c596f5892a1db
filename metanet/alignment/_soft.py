"""Soft relabellings: doubly stochastic matrices in the place of permutations, differentiable."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..graph import real_parts
from ..symmetry import SymmetrySpec
from ._assignment import assign
from ._moves import Keys
from ._pieces import Piece, pieces_of

Matrices = Mapping[str, Tensor]
"""For every group ``(*sizes of its keys, size, size)``: new items, then old items; looked up by the
keys' new items."""


def soft_arrange(
    array: Tensor, groups: Sequence[str | None], matrices: Matrices, keys: Keys
) -> Tensor:
    """Mixes the items of every movable axis of a piece: :func:`arrange` for doubly stochastic
    matrices."""
    at_axes = enumerate(groups)
    named = [(axis, group) for axis, group in at_axes if group is not None and group in matrices]
    axes = list(range(array.ndim))
    new = array.ndim
    for axis, group in sorted(named, key=lambda pair: len(keys[pair[1]])):
        # out[.., new, ..] = sum over axis of matrix[*keys, new, axis] array[.., axis, ..]
        at_keys = [groups.index(key) for key in keys[group]]
        out = [new if d == axis else d for d in axes]
        array = torch.einsum(matrices[group], [*at_keys, new, axis], array, axes, out)
    return array


def as_matrices(
    elements: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Permutations as matrices."""
    return {
        g: torch.nn.functional.one_hot(e, e.shape[-1]).to(device, dtype)
        for g, e in elements.items()
    }


def harden(matrices: Matrices) -> dict[str, Tensor]:
    """The permutations that have the largest inner product with the matrices."""
    return {
        g: torch.from_numpy(np.ascontiguousarray(assign(m.detach().cpu().numpy())))
        for g, m in matrices.items()
    }


class SoftTransform:
    """Applies soft relabellings to whole state dicts, statistics included."""

    def __init__(self, spec: SymmetrySpec, keys: Keys) -> None:
        self.spec, self.keys = spec, keys
        self.pieces: dict[str, list[Piece]] = {}
        for piece in pieces_of(spec, leave_out=()):
            self.pieces.setdefault(piece.tensor, []).append(piece)
        # where in a tensor the entries of its pieces belong, one piece behind the other
        self._places = {}
        for name, pieces in self.pieces.items():
            shape = spec.tensors[name].shape
            if spec.tensors[name].is_complex:
                shape = (*shape, 2)
            numbers = torch.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
            self._places[name] = torch.cat([p.take(numbers).flatten() for p in pieces]).argsort()

    def __call__(self, state: Mapping[str, Tensor], matrices: Matrices) -> dict[str, Tensor]:
        """A moved copy; second names of tied tensors and entries that the spec does not know are
        passed on."""
        out = dict(state)
        for name, pieces in self.pieces.items():
            movable = any(group in matrices for piece in pieces for group in piece.groups)
            if name not in state or not movable:
                continue
            moved = []
            for piece in pieces:
                groups = [atom.group for atom in piece.atoms]
                part = soft_arrange(piece.take(state[name]), groups, matrices, self.keys)
                moved.append(part.flatten())
            places = self._places[name].to(state[name].device)
            whole = torch.cat(moved)[places].reshape(real_parts(state[name]).shape)
            out[name] = torch.view_as_complex(whole) if state[name].is_complex() else whole
        return out
