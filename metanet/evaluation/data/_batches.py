"""Samples in batches, the same at every reading."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...errors import MetanetError
from ...tracing import tensors_in
from .._running import cut

# how many, and what makes a batch of some of them by their numbers
Samples = tuple[int, Callable[[Tensor], Any]]


class Batches:
    """Samples in an order that is drawn once: files are sorted by class, and batches should hold
    all classes.

    Args:
        samples: how many there are, and a function from numbers of samples ``(n,)`` int64 to their
            batch.
        limit: use only so many, the first of that order.
        seed: of the order.
    """

    def __init__(self, samples: Samples, batch_size: int, limit: int | None, seed: int) -> None:
        count, self._make = samples
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        self._parts = order[:limit].split(batch_size)
        self.samples = len(order[:limit])

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Any]:
        return (self._make(part) for part in self._parts)


class Limited:
    """Batches that somebody else makes, up to a number of samples; the last one is cut."""

    def __init__(self, batches: Iterable[Any], limit: int | None) -> None:
        if isinstance(batches, Iterator):
            raise MetanetError(
                f"data: the factory returned a {type(batches).__name__}, "
                "which can be read only once; return a list, "
                "a DataLoader, or an object whose __iter__ starts anew"
            )
        self._batches, self._limit = batches, limit

    def __iter__(self) -> Iterator[Any]:
        remaining = self._limit
        for batch in self._batches:
            if remaining is None:
                yield batch
                continue
            first = next(tensors_in(batch), None)
            if first is None or first.ndim == 0:
                raise MetanetError("data: a batch has no tensor with one row a sample")
            yield cut(batch, len(first), 0, remaining)
            remaining -= len(first)
            if remaining <= 0:
                return
