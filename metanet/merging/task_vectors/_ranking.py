"""The edge above which the largest entries of a task vector lie: exact, without sorting it."""

import math

import numpy as np
import torch

from ._vector import CHUNK, Edge, TaskVector, chunks

_SAMPLE = 1 << 14


def edge_below(vector: TaskVector, count: int) -> Edge | None:
    """The edge above which the ``count`` entries of largest magnitude lie, of equal ones those that
    come first.

    A sample tells between which two magnitudes the edge must be; one pass counts what is larger and
    collects the few entries between, among which it is found. Where the sample erred, all entries
    are searched.

    Args:
        vector: with nothing dropped.
        count: 1 to the number of entries; for all of them there is no edge.
    """
    size = len(vector.base)
    if count >= size:
        return None
    edge = None
    if size > 2 * CHUNK and vector.base.device.type == "cpu":
        edge = _between(vector, count, *_bracket(vector, count))
    magnitude, larger, equal = edge or _among_all(vector, count)
    position = size if larger + equal == count else _position(vector, magnitude, count - larger)
    below = torch.nextafter(
        torch.tensor(magnitude, dtype=vector.base.dtype), vector.base.new_zeros((), device="cpu")
    )
    return Edge(magnitude, float(below), position)


def _bracket(vector: TaskVector, count: int) -> tuple[float, float]:
    """Magnitudes between which that of the edge lies, but for four standard deviations of bad
    luck."""
    size = len(vector.base)
    places = np.sort(np.random.default_rng(0).integers(0, size, _SAMPLE))
    sample = np.sort(np.abs(vector.base.numpy()[places] - vector.tensor.numpy()[places]))
    rank = _SAMPLE * (1 - count / size)
    spread = 2 + 4 * math.sqrt(rank * count / size)
    return float(sample[max(0, int(rank - spread))]), float(
        sample[min(_SAMPLE - 1, int(rank + spread))]
    )


def _between(
    vector: TaskVector, count: int, low: float, high: float
) -> tuple[float, int, int] | None:
    """The magnitude of rank ``count``, how many are larger and how many equal; ``None`` if it isn't
    in the bracket.

    Both ends are counted on their own: a value that most entries share, as zero may be, is one of
    them.
    """
    above = from_high = from_low = 0
    pieces = []
    buffer = vector.base.new_empty(CHUNK)
    for start, stop in chunks(vector.base):
        values = vector.back(start, buffer[: stop - start]).abs_().numpy()
        is_from_high = values >= high
        is_above_low = values > low
        above += int(np.count_nonzero(values > high))
        from_high += int(np.count_nonzero(is_from_high))
        from_low += int(np.count_nonzero(values >= low))
        pieces.append(values[is_above_low > is_from_high])
    inside = np.concatenate(pieces)
    if above < count <= from_high:
        return high, above, from_high - above
    if from_high < count <= from_high + len(inside):
        magnitude, larger, equal = _selected(inside, count - from_high)
        return magnitude, from_high + larger, equal
    larger = from_high + len(inside)
    return (low, larger, from_low - larger) if larger < count <= from_low else None


def _selected(values: np.ndarray, count: int) -> tuple[float, int, int]:
    values.partition(len(values) - count)
    magnitude = values[len(values) - count]
    return (
        float(magnitude),
        int(np.count_nonzero(values > magnitude)),
        int(np.count_nonzero(values == magnitude)),
    )


def _among_all(vector: TaskVector, count: int) -> tuple[float, int, int]:
    values = vector.back(0, torch.empty_like(vector.base)).abs_()
    if values.device.type == "cpu":
        return _selected(values.numpy(), count)
    magnitude = values.kthvalue(len(values) - count + 1).values
    return float(magnitude), int((values > magnitude).sum()), int((values == magnitude).sum())


def _position(vector: TaskVector, magnitude: float, wanted: int) -> int:
    """Behind the last of the first ``wanted`` entries of a magnitude."""
    for start, stop in chunks(vector.base):
        equal = vector.back(start, vector.base.new_empty(stop - start)).abs_() == magnitude
        there = int(torch.count_nonzero(equal))
        if there >= wanted:
            return start + int(torch.nonzero(equal)[wanted - 1]) + 1
        wanted -= there
    return len(vector.base)
