"""Index arrays as boxes: which entries of a tensor join which nodes, said in sizes and strides.

The builder knows the ends of a tensor's edges as arrays over the tensor's axes. Nearly always these
are sums of one step per digit of the axes (``node = start + sum(step * digit)``), perhaps after
cutting an axis where it runs from one range of nodes into the next. Boxes say the same in a few
numbers per tensor, whatever its size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

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


def digits(columns: Sequence[np.ndarray]) -> list[tuple[int, tuple[int, ...]]] | int:
    """The digits, slowest first, in which all columns are linear: ``(size, step per column)``.

    Args:
        columns: integers, ``(n,)`` each.

    Returns:
        the digits, or a place to cut if there are none.
    """
    n = len(columns[0])
    if n <= 1:
        return []
    steps = [int(c[1] - c[0]) for c in columns]
    run = n
    for c, step in zip(columns, steps, strict=True):
        broken = np.flatnonzero(np.diff(c[:run]) != step)
        run = min(run, int(broken[0]) + 1) if len(broken) else run
    for size in range(run, 1, -1):
        if n % size:
            continue
        inner = np.arange(size)
        table = [c.reshape(-1, size) for c in columns]
        if all((t - t[:, :1] == step * inner).all() for t, step in zip(table, steps, strict=True)):
            rest = digits([t[:, 0] for t in table])
            if not isinstance(rest, int):
                return [*rest, (size, tuple(steps))]
    return run if run < n else 1


@dataclass
class _Sides:
    """Arrays over the axes of a box: entries, and for each end its range and its position there."""

    entries: np.ndarray
    ranges: tuple[np.ndarray, np.ndarray]
    positions: tuple[np.ndarray, np.ndarray]


def boxes(
    entries: np.ndarray | tuple[int, tuple[int, ...], tuple[int, ...]],
    ranges: tuple[np.ndarray, np.ndarray],
    positions: tuple[np.ndarray, np.ndarray],
) -> Iterator[Box]:
    """Cut a tensor into boxes.

    Args:
        entries: number of every entry, -1 for none, as an array or as ``(offset, sizes, strides)``.
        ranges: of source and destination: number of the range, broadcastable to the shape of the
            entries.
        positions: position within that range, likewise.
    """
    if isinstance(entries, tuple):
        offset, shape, strides = entries
    else:
        offset, shape, strides = 0, entries.shape, None
    rank = len(shape)
    full = [a.reshape((1,) * (rank - a.ndim) + a.shape) for a in (*ranges, *positions)]
    todo = [[np.arange(n) for n in shape]]
    while todo:
        box = todo.pop()

        def part(a: np.ndarray, box: list[np.ndarray] = box) -> np.ndarray:
            return a[np.ix_(*(j if n > 1 else [0] for j, n in zip(box, a.shape, strict=True)))]

        r_s, r_d, p_s, p_d = (part(a) for a in full)
        e = None if strides is not None else part(entries)
        marks = [r_s, r_d] if e is None else [r_s, r_d, e < 0]
        cut = [_same_rows(marks, a, len(box[a])) for a in range(rank)]
        if any(len(c) > 1 for c in cut):
            cut = _least_cut(marks, cut)
            todo += [[j[c] for j, c in zip(box, chosen, strict=True)] for chosen in product(*cut)][
                ::-1
            ]
            continue
        if e is not None and e.flat[0] < 0:
            continue
        values = [p_s, p_d] + ([] if e is None else [e])
        first = [int(v.flat[0]) for v in values]
        found: list[tuple[int, tuple[int, ...]]] = []
        for axis in range(rank):
            lines = [_line(v, axis, len(box[axis])) for v in values]
            step = lines[2] if e is not None else box[axis] * strides[axis]
            some = digits([step, lines[0], lines[1]])
            if isinstance(some, int):
                todo += _halves(box, axis, some)
                break
            found += some
        else:
            axis = next((a for v in values if (a := _not_additive(v)) is not None), None)
            if axis is not None:
                todo += _halves(box, axis, 1)
                continue
            where = (
                first[2]
                if e is not None
                else offset + sum(int(j[0]) * s for j, s in zip(box, strides, strict=False))
            )
            starts = [where, first[0], first[1]]
            for i, (n, s) in enumerate(found):
                if s[0] < 0:  # entries are counted forwards
                    starts = [start + (n - 1) * step for start, step in zip(starts, s, strict=True)]
                    found[i] = (n, tuple(-step for step in s))
            yield Box(
                offset=starts[0],
                sizes=tuple(n for n, _ in found),
                strides=tuple(s[0] for _, s in found),
                source=int(r_s.flat[0]),
                source_start=starts[1],
                source_strides=tuple(s[1] for _, s in found),
                destination=int(r_d.flat[0]),
                destination_start=starts[2],
                destination_strides=tuple(s[2] for _, s in found),
            )


def _least_cut(marks: Sequence[np.ndarray], cut: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Cuts along all axes at once, or along one alone if that leaves fewer boxes: in each part
    others are cut there.

    ``aaaa / bbcc / dddd`` is four boxes when the rows are cut first, six when rows and columns are
    cut together.
    """
    axes = [a for a, c in enumerate(cut) if len(c) > 1]
    best, fewest = cut, prod(map(len, cut))
    for axis in axes if len(axes) > 1 else ():
        total = 0
        for rows in cut[axis]:
            inside = [m.take(rows, axis) if m.shape[axis] > 1 else m for m in marks]
            total += prod(
                len(_same_rows(inside, a, sum(map(len, cut[a])))) for a in axes if a != axis
            )
        if total < fewest:
            fewest = total
            best = [c if a == axis else [np.sort(np.concatenate(c))] for a, c in enumerate(cut)]
    return best


def _halves(box: list[np.ndarray], axis: int, at: int) -> list[list[np.ndarray]]:
    """The box cut in two, the second first (it is a stack)."""
    return [[*box[:axis], part, *box[axis + 1 :]] for part in (box[axis][at:], box[axis][:at])]


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
