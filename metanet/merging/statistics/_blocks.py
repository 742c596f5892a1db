"""Where the matrices of linear maps lie in the memory of a parameter."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Matrices that lie one after the other in a parameter's memory: one of a linear layer, one per
    group or expert.

    A packed projection ``(q | k | v, inputs)`` that is used in parts has three blocks of one
    matrix; a stack of experts ``(experts, rows, inputs)``, multiplied in one go, has one block of
    many::

        q k v packed     start 0, n, 2 n    batch 1 each
        experts          start 0            batch = experts

    Attributes:
        start: of the first, in values.
        batch: how many.
        rows, inputs: of each.
        transposed: stored as ``(inputs, rows)``.
    """

    start: int
    batch: int
    rows: int
    inputs: int
    transposed: bool

    @property
    def stop(self) -> int:
        """Behind the last value."""
        return self.start + self.batch * self.rows * self.inputs

    def of(self, tensor: Tensor) -> Tensor:
        """The matrices ``(batch, rows, inputs)``; a view if the tensor is contiguous."""
        flat = tensor.reshape(-1)[self.start : self.stop]
        if self.transposed:
            return flat.view(self.batch, self.inputs, self.rows).mT
        return flat.view(self.batch, self.rows, self.inputs)


def block_of(matrix: Tensor) -> Block | None:
    """Where the right factor ``(..., inputs, rows)`` of a product lies in a parameter's memory.

    Its strides tell: ``W`` of the shape ``(rows, inputs)`` is the right factor as ``W.T``, with the
    strides ``(1, inputs)``; stored the other way round it has ``(rows, 1)``. Anything else, every
    second row say, is no block.
    """
    inputs, rows = matrix.shape[-2:]
    stacked = matrix.ndim == 3 and matrix.stride(0) != 0  # 0: one matrix, expanded
    batch = len(matrix) if stacked else 1
    if batch > 1 and matrix.stride(0) != inputs * rows:
        return None
    start = int(matrix.storage_offset())
    if _has_strides(matrix, 1, inputs):
        return Block(start, batch, rows, inputs, transposed=False)
    if _has_strides(matrix, rows, 1):
        return Block(start, batch, rows, inputs, transposed=True)
    return None


def _has_strides(matrix: Tensor, down: int, across: int) -> bool:
    """Whether the last two axes have these strides; that of an axis of size 1 means nothing."""
    sizes, strides = matrix.shape[-2:], matrix.stride()[-2:]
    steps = zip(sizes, strides, (down, across), strict=True)
    return all(stride == step for size, stride, step in steps if size != 1)


def apart(blocks: Iterable[Block]) -> bool:
    """Whether no two blocks share memory."""
    ordered = sorted(blocks, key=lambda block: block.start)
    return all(one.stop <= other.start for one, other in pairwise(ordered))
