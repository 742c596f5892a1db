"""Task vectors, computed a chunk at a time, with some of their entries dropped.

A chunk and what is made of it stay in the processor's cache, and no tensor is written that the
result does not need.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .._part import Part

# entries: 128 KiB of float32; for more, PyTorch wakes a second thread, which costs more than it
# saves
CHUNK = 1 << 15


@dataclass(frozen=True)
class Edge:
    """Where the ranking by magnitude is cut: above it are larger entries, and equal ones before a
    position.

    So exactly as many entries as wanted lie above, equal ones by their order in the tensor.
    """

    magnitude: float
    below: float  # the next smaller number
    position: int

    def above(self, chunk: Tensor, start: int) -> Tensor:
        """The entries above, zeros for the others; the chunk's first entry is at ``start`` in the
        tensor."""
        first = min(max(self.position - start, 0), len(chunk))
        if first in (0, len(chunk)):
            return torch.hardshrink(chunk, self.below if first else self.magnitude)
        return torch.cat(
            [
                torch.hardshrink(chunk[:first], self.below),
                torch.hardshrink(chunk[first:], self.magnitude),
            ]
        )


@dataclass(frozen=True)
class TaskVector:
    """What one model changed of the base (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089),
    some entries dropped.

    Attributes:
        tensor, base: flat.
        low, high: only entries above the one edge and not above the other are kept.
        factors: by which each entry is multiplied, 0 or 1 or any other number.
        factor: by which all are multiplied besides.
    """

    tensor: Tensor
    base: Tensor
    low: Edge | None = None
    high: Edge | None = None
    factors: Tensor | None = None
    factor: float = 1.0

    @classmethod
    def of(cls, part: Part, model: int) -> "TaskVector":
        """All that a model changed.

        Raises:
            MetanetError: there is no base.
        """
        return cls(part.tensors[model].reshape(-1), part.origin.reshape(-1))

    def back(self, start: int, out: Tensor) -> Tensor:
        """The way back from the model to the base, from entry ``start`` on, without ``factor``;
        ``out`` is overwritten.

        That is the task vector with its sign turned: base - 0 is the base bit for bit, where -0.0 +
        0 is not.
        """
        stop = start + len(out)
        return self.kept(start, torch.sub(self.base[start:stop], self.tensor[start:stop], out=out))

    def kept(self, start: int, chunk: Tensor) -> Tensor:
        """The entries of a chunk that are kept, zeros for the others; the chunk is overwritten."""
        kept = chunk if self.low is None else self.low.above(chunk, start)
        if self.high is not None:
            kept = kept.sub_(self.high.above(chunk, start))
        return kept if self.factors is None else kept.mul_(self.factors[start : start + len(chunk)])


def chunks(flat: Tensor) -> Iterator[tuple[int, int]]:
    """First entry and the one behind the last of every chunk."""
    length = _length(flat)
    for start in range(0, len(flat), length):
        yield start, min(start + length, len(flat))


def buffers(flat: Tensor, count: int) -> Tensor:
    """Memory for as many chunks."""
    return flat.new_empty(count, min(len(flat), _length(flat)))


def _length(flat: Tensor) -> int:
    return CHUNK if flat.device.type == "cpu" else CHUNK << 10
