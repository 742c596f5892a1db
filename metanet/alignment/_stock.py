"""The two checkpoints as pieces, ready to be multiplied."""

import math
from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from ..symmetry import SymmetrySpec
from ._checks import require_finite, stored_dtype
from ._moves import View
from ._pieces import Piece

_WHO = ("the checkpoint to align to", "the checkpoint to be aligned")


class Stock:
    """Pieces of the reference and of the checkpoint to be moved, read when asked for and kept while
    there is room.

    Args:
        pieces: of the spec.
        reference, moving: the checkpoints; may be lazy.
        device: where pieces go.
        room: bytes to keep, of pieces and of what is made of them.
        balance: see :func:`balanced`.

    Attributes:
        dtype: of all pieces, which are real: float64 if both checkpoints are (or complex128), else
            float32.
        sizes: number of items of every group.
    """

    def __init__(
        self,
        spec: SymmetrySpec,
        pieces: Sequence[Piece],
        reference: Mapping[str, Tensor],
        moving: Mapping[str, Tensor],
        device: torch.device,
        room: int,
        balance: bool = False,
    ) -> None:
        self.pieces, self.device, self.balance = pieces, device, balance
        self.sizes = {g.name: g.size for g in spec.groups}
        self._sides = (reference, moving)
        self._room = room
        self._kept: dict[tuple, Tensor] = {}
        self._norms: dict[tuple[int, int], float] = {}
        self._last: tuple[tuple[int, str], Tensor] | None = None
        self._names = [
            {t: stored_name(spec, t, side) for t in {p.tensor for p in pieces}}
            for side in self._sides
        ]
        double = all(
            stored_dtype(side, n).to_real() == torch.float64
            for side, names in zip(self._sides, self._names, strict=True)
            for n in names.values()
        )
        self.dtype = torch.float64 if double else torch.float32

    def reference(self, piece: int) -> Tensor:
        """A piece of the reference."""
        return self._get(0, piece)

    def moving(self, piece: int) -> Tensor:
        """A piece of the checkpoint to be moved, unmoved."""
        return self._get(1, piece)

    def lines(self, side: int, view: View) -> Tensor:
        """A piece of the reference (0) or the other (1) as a view's lines, ``(run, rest, batch,
        free)``."""
        piece, order = self._get(side, view.piece), view.lines
        key = (side, view.piece, order)
        if key not in self._kept:
            first, last = view.stretch
            shape = [piece.shape[i] for i in order]
            free = len(order) - len(view.free)
            ends = (last - first, free - len(view.batch), free, len(order))
            sizes = [prod(shape[i:j]) for i, j in zip((0, *ends), ends, strict=False)]
            flat = piece.permute(order).reshape(sizes).contiguous()
            if flat.data_ptr() == piece.data_ptr() or not self.reserve(flat.nbytes):
                return flat
            self._kept[key] = flat
        return self._kept[key]

    def norm(self, side: int, piece: int) -> float:
        """The Euclidean norm of a piece."""
        if (side, piece) not in self._norms:
            self._get(side, piece)
        return self._norms[side, piece]

    def _get(self, side: int, number: int) -> Tensor:
        if (side, number) in self._kept:
            return self._kept[side, number]
        piece = self.pieces[number]
        key = (side, piece.tensor)
        # the next piece asked for is often of the same tensor
        if self._last is None or self._last[0] != key:
            self._last = (key, self._sides[side][self._names[side][piece.tensor]].detach())
        array = piece.take(self._last[1]).to(self.device, self.dtype).contiguous()
        if self.balance:
            array = balanced(array, piece)
        norm = self._norms[side, number] = float(torch.linalg.vector_norm(array))
        if not math.isfinite(norm):  # or else the sum of squares has overflowed
            require_finite(array, piece.tensor, _WHO[side])
        if self.reserve(array.nbytes):
            self._kept[side, number] = array
        return array

    def reserve(self, size: int) -> bool:
        """Whether there is room to keep so many bytes, which are then taken."""
        if size > self._room:
            return False
        self._room -= size
        return True


def stored_name(spec: SymmetrySpec, name: str, side: Mapping[str, Tensor]) -> str:
    """The name under which a checkpoint has a tensor that may have several."""
    if name in side:
        return name
    return next(n for n, t in spec.tensors.items() if t.tied_to == name and n in side)


def balanced(array: Tensor, piece: Piece, rounds: int = 6) -> Tensor:
    """A piece with all items of its groups at one size, so that no neuron counts more than another.

    What scaling neurons would change (ReLU's positive scales, the scale of a kernel before
    BatchNorm) is gone, what relabelling them does stays. A vector keeps its proportions, as its
    entries are all that tells neurons apart.
    """
    moving = [i for i, a in enumerate(piece.atoms) if a.group is not None]
    if array.ndim == 1:
        return array / _size(array, [0])
    for _ in range(rounds if len(moving) > 1 else 1):
        for i in moving:
            array = array / _size(array, [d for d in range(array.ndim) if d != i])
    return array


def _size(array: Tensor, over: list[int]) -> Tensor:
    """Root mean square, 1 where it is 0."""
    size = array.square().mean(over, keepdim=True).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))
