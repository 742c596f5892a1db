"""Index arrays as boxes: which entries of a tensor join which nodes, said in sizes and strides.

The builder knows the ends of a tensor's edges as arrays over the tensor's axes. Nearly always these
are sums of one step per digit of the axes (``node = start + sum(step * digit)``), perhaps after
cutting an axis where it runs from one range of nodes into the next. Boxes say the same in a few
numbers per tensor, whatever its size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, repeat
from math import prod
from operator import getitem, mul
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Box:
    """Entries ``offset + sum(strides * digits)`` run from nodes of one range to nodes of another.

    Attributes:
        offset, sizes, strides: the entries, as ``as_strided`` counts them.
        source, destination: numbers of the ranges.
        source_start, source_strides: position in the source range, likewise; destination alike.
    """

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    source: int
    source_start: int
    source_strides: tuple[int, ...]
    destination: int
    destination_start: int
    destination_strides: tuple[int, ...]


_Steps = tuple[int, tuple[int, ...]]
"""A digit: how many it counts, and by what each column grows with it."""


def digits(columns: Sequence[np.ndarray]) -> list[_Steps] | int:
    """The digits, slowest first, in which all columns are linear.

    ``0 1 2 10 11 12`` has two: ``(2, (10,))`` and ``(3, (1,))``. ``0 1 2 3 9`` has none, and is to
    be cut before the 9.

    Args:
        columns: integers, ``(n,)`` each.

    Returns:
        the digits, or a place to cut if there are none.
    """
    n = len(columns[0])
    if n <= 1:
        return []
    steps = [int(column[1] - column[0]) for column in columns]
    run = _linear_run(columns, steps)
    # 0 1 2 10 11 12: the run is 3 long, so try rows of 3, then of 2
    #     0  1  2
    #    10 11 12      all rows grow by 1: a digit; the first column, 0 10, has digits in turn
    sizes = [size for size in range(run, 1, -1) if n % size == 0]
    for size in sizes:
        tables = [column.reshape(-1, size) for column in columns]
        if all(map(_has_linear_rows, tables, steps)):
            outer = digits([table[:, 0] for table in tables])
            if not isinstance(outer, int):
                return [*outer, (size, tuple(steps))]
    return run if run < n else 1


def _linear_run(columns: Sequence[np.ndarray], steps: Sequence[int]) -> int:
    """How many items all columns grow by their steps from the start: 3 of ``0 1 2 10 11 12``."""
    run = len(columns[0])
    for column, step in zip(columns, steps, strict=True):
        broken = np.flatnonzero(np.diff(column[:run]) != step)
        if len(broken):
            run = int(broken[0]) + 1
    return run


def _has_linear_rows(table: np.ndarray, step: int) -> bool:
    return bool((table - table[:, :1] == step * np.arange(table.shape[1])).all())


class Strided(NamedTuple):
    """Entries of a tensor, told by offset, sizes and strides."""

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


_Items = list[np.ndarray]
"""Some items of each axis of a tensor: all entries whose digits are among these."""


class _Cut(NamedTuple):
    """A place to cut: before the n-th item of an axis."""

    axis: int
    at: int


def boxes(
    entries: np.ndarray | Strided,
    ranges: tuple[np.ndarray, np.ndarray],
    positions: tuple[np.ndarray, np.ndarray],
) -> Iterator[Box]:
    """Cut a tensor into boxes.

    A fused map of 2 queries and 2 keys that read 3 neurons is cut where it runs from the range of
    queries into that of keys::

        ranges of destinations    0 0 0      positions    0 0 0      two boxes (2 x 3): entries
                                  0 0 0                   1 1 1      0 + 3 i + j and 6 + 3 i + j,
                                  1 1 1                   0 0 0      both to the positions i of
                                  1 1 1                   1 1 1      their ranges

    Args:
        entries: number of every entry, -1 for none, as an array or by strides.
        ranges: of source and destination: number of the range, broadcastable to the shape of the
            entries.
        positions: position within that range, likewise.
    """
    tensor = _Tensor(entries, ranges, positions)
    todo = [[np.arange(n) for n in tensor.shape]]  # a stack: what comes first is on top
    while todo:
        items = todo.pop()
        part = tensor.part(items)
        if smaller := part.of_one_range():
            todo += smaller[::-1]
            continue
        if part.is_nothing:
            continue
        digits = part.digits()
        if isinstance(digits, _Cut):
            todo += _halves(items, digits)
        else:
            yield part.as_box(digits)


class _Tensor:
    """Entries and ends of a tensor, over the same axes (of size 1 where nothing differs)."""

    def __init__(
        self,
        entries: np.ndarray | Strided,
        ranges: tuple[np.ndarray, np.ndarray],
        positions: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self.strided = entries if isinstance(entries, Strided) else None
        self.entries = entries if isinstance(entries, np.ndarray) else None
        self.shape = entries.sizes if isinstance(entries, Strided) else entries.shape

        def full(a: np.ndarray) -> np.ndarray:
            return a.reshape((1,) * (len(self.shape) - a.ndim) + a.shape)

        self.ranges, self.positions = tuple(map(full, ranges)), tuple(map(full, positions))

    def part(self, items: _Items) -> "_Part":
        """The entries of some items of each axis."""

        def some(a: np.ndarray) -> np.ndarray:
            return a[np.ix_(*(j if n > 1 else [0] for j, n in zip(items, a.shape, strict=True)))]

        entries = None if self.entries is None else some(self.entries)
        ranges, positions = tuple(map(some, self.ranges)), tuple(map(some, self.positions))
        return _Part(items, entries, self.strided, ranges, positions)


@dataclass(frozen=True)
class _Part:
    """Some items of each axis of a tensor: entries (``None`` if they are strided), and for each end
    its range and its position there."""

    items: _Items
    entries: np.ndarray | None
    strided: Strided | None
    ranges: tuple[np.ndarray, ...]
    positions: tuple[np.ndarray, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether there are no entries; asked of a part of one range."""
        return self.entries is not None and bool(self.entries.flat[0] < 0)

    def of_one_range(self) -> list[_Items]:
        """Parts whose ends are of one range each, and that have entries everywhere or nowhere;
        nothing if it is such a part itself."""
        marks = [*self.ranges] if self.entries is None else [*self.ranges, self.entries < 0]
        lengths = map(len, self.items)
        cut = [_same_rows(marks, axis, length) for axis, length in enumerate(lengths)]
        if all(len(rows) == 1 for rows in cut):
            return []
        # rows {0 1 | 2} and columns {0 | 1 2 3} are four parts
        parts = product(*_least_cut(marks, cut))
        return [list(map(getitem, self.items, part)) for part in parts]

    def digits(self) -> "list[_Steps] | _Cut":
        """The digits in which entries and both ends are linear, or a place to cut if there are
        none."""
        linear: list[_Steps] = []
        for axis in range(len(self.items)):
            columns = [self._entry_line(axis), *(self._line(p, axis) for p in self.positions)]
            along = digits(columns)
            if isinstance(along, int):
                return _Cut(axis, along)
            linear += along
        for array in self._arrays():
            bent = _not_additive(array)
            if bent is not None:
                return _Cut(bent, 1)
        return linear

    def _arrays(self) -> list[np.ndarray]:
        return [*self.positions, *(() if self.entries is None else (self.entries,))]

    def _line(self, array: np.ndarray, axis: int) -> np.ndarray:
        return _line(array, axis, len(self.items[axis]))

    def _entry_line(self, axis: int) -> np.ndarray:
        """The entries of the first line along an axis, or how far they lie from the first one."""
        if self.entries is not None:
            return self._line(self.entries, axis)
        assert self.strided is not None
        return self.items[axis] * self.strided.strides[axis]

    def _first_entry(self) -> int:
        if self.entries is not None:
            return int(self.entries.flat[0])
        assert self.strided is not None
        firsts = [int(along[0]) for along in self.items]
        return self.strided.offset + sum(map(mul, firsts, self.strided.strides))

    def as_box(self, linear: "list[_Steps]") -> Box:
        """The part as a box; entries are counted forwards."""
        starts = [self._first_entry(), *(int(p.flat[0]) for p in self.positions)]
        sizes = [size for size, _ in linear]
        steps = [step for _, step in linear]
        for i, (size, step) in enumerate(linear):
            if step[0] < 0:
                starts = [start + (size - 1) * s for start, s in zip(starts, step, strict=True)]
                steps[i] = tuple([-s for s in step])
        sources, destinations = self.ranges
        return Box(
            offset=starts[0],
            sizes=tuple(sizes),
            strides=tuple([entry for entry, _, _ in steps]),
            source=int(sources.flat[0]),
            source_start=starts[1],
            source_strides=tuple([source for _, source, _ in steps]),
            destination=int(destinations.flat[0]),
            destination_start=starts[2],
            destination_strides=tuple([destination for _, _, destination in steps]),
        )


def _least_cut(marks: Sequence[np.ndarray], cut: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Cuts along all axes at once, or along one alone if that leaves fewer boxes: in each part
    others are cut there.

    ``aaaa / bbcc / dddd`` is four boxes when the rows are cut first, six when rows and columns are
    cut together.
    """
    axes = [axis for axis, rows in enumerate(cut) if len(rows) > 1]
    if len(axes) < 2:
        return cut
    boxes_after = {axis: _boxes_after(marks, cut, axis, axes) for axis in axes}
    axis = min(axes, key=boxes_after.__getitem__)
    if boxes_after[axis] >= prod(map(len, cut)):
        return cut
    whole = [[np.sort(np.concatenate(rows))] for rows in cut]
    whole[axis] = cut[axis]
    return whole


def _boxes_after(
    marks: Sequence[np.ndarray], cut: list[list[np.ndarray]], axis: int, axes: Sequence[int]
) -> int:
    """How many boxes there are if an axis is cut first, and the other axes in each part of it."""
    others = [other for other in axes if other != axis]
    total = 0
    for rows in cut[axis]:
        inside = [m.take(rows, axis) if m.shape[axis] > 1 else m for m in marks]
        lengths = [sum(map(len, cut[other])) for other in others]
        total += prod(map(len, map(_same_rows, repeat(inside), others, lengths)))
    return total


def _halves(items: _Items, cut: _Cut) -> list[_Items]:
    """The items cut in two, the second first."""
    along = items[cut.axis]
    before, behind = items[: cut.axis], items[cut.axis + 1 :]
    return [[*before, half, *behind] for half in (along[cut.at :], along[: cut.at])]


def _same_rows(arrays: Sequence[np.ndarray], axis: int, n: int) -> list[np.ndarray]:
    """The items of an axis, by what all arrays hold for them."""
    if n == 1:
        return [np.arange(1)]
    label = np.zeros(n, dtype=np.int64)
    for a in arrays:
        if a.shape[axis] == 1:
            continue
        rows = np.moveaxis(a, axis, 0).reshape(n, -1)
        if (rows == rows[:1]).all():
            continue
        _, inverse = np.unique(rows, axis=0, return_inverse=True)
        label = label * (int(inverse.max()) + 1) + inverse.reshape(-1)
    names, first = np.unique(label, return_index=True)
    return [np.flatnonzero(label == names[i]) for i in np.argsort(first)]


def _line(a: np.ndarray, axis: int, n: int) -> np.ndarray:
    """The first line of an array along an axis."""
    if a.shape[axis] == 1:
        return np.zeros(n, dtype=np.int64)
    return a[tuple(slice(None) if i == axis else 0 for i in range(a.ndim))]


def _not_additive(a: np.ndarray) -> int | None:
    """An axis to cut if an array is no sum of its first lines."""
    varying = [i for i, n in enumerate(a.shape) if n > 1]
    if len(varying) < 2:
        return None
    total = np.array(a.flat[0])
    for axis in varying:
        line = _line(a, axis, a.shape[axis]) - a.flat[0]
        total = total + line.reshape([-1 if i == axis else 1 for i in range(a.ndim)])
    if (total == a).all():
        return None
    return min(varying, key=lambda i: a.shape[i])
