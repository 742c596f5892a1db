"""Deep networks in rows: the ribbon of columns is cut as a line of text is, and edges go on in the
next row.

::

    ribbon   |0 1 2 3 4 5 6 7|          page   |0 1 2 3 ->
                                               -> 4 5 6 7|

Places on the ribbon are what the layout knows; places on the page are what is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WIDEST = 2.2  # width of the page by its height, from which on it is cut into more rows,
_NARROW = 16.0  # but not while it is narrower than this, in inches
_GAP = 0.25  # inches between rows


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stretch of the ribbon.

    Attributes:
        start, stop: x on the ribbon where it begins and ends.
        left, down: what is added to x and y.
    """

    start: float
    stop: float
    left: float
    down: float


def cut(
    tops: Sequence[float], bottoms: Sequence[float], margin: float, spacing: float, top: float
) -> tuple[tuple[Row, ...], float]:
    """As few rows as make a page that is not much wider than high.

    Args:
        tops, bottoms: of every column, on the ribbon.
        margin: x at which the first column's room begins.
        spacing: room of a column.
        top: y on the page at which the first row begins.

    Returns:
        The rows, and the y at which the last one ends.
    """
    columns = len(tops)
    for count in range(1, max(columns, 1) + 1):
        per_row = -(-columns // count)
        rows, height = _rows(tops, bottoms, margin, spacing, per_row, top)
        width = spacing * per_row + 2 * margin
        if width <= max(_NARROW, _WIDEST * (height + 1)):  # an inch for title and legend
            break
    return rows, height


def _rows(
    tops: Sequence[float],
    bottoms: Sequence[float],
    margin: float,
    spacing: float,
    per_row: int,
    reached: float,
) -> tuple[tuple[Row, ...], float]:
    rows: list[Row] = []
    for first in range(0, max(len(tops), 1), max(per_row, 1)):
        own = slice(first, first + per_row)
        top, bottom = min(tops[own], default=0.0), max(bottoms[own], default=0.0)
        gap = _GAP if rows else 0.0
        rows.append(
            Row(
                start=margin + spacing * first,
                stop=margin + spacing * (first + per_row),
                left=-spacing * first,
                down=reached + gap - top,
            )
        )
        reached += gap + bottom - top
    return tuple(rows), reached


def number_of(rows: Sequence[Row], x: float) -> int:
    """The row that a place on the ribbon is in."""
    return next((number for number, row in enumerate(rows) if x < row.stop), len(rows) - 1)


def wrapped(rows: Sequence[Row], paths: np.ndarray) -> np.ndarray:
    """Polylines on the ribbon as polylines on the page, broken (NaN) where a row ends.

    Args:
        paths: ``(n, points, 2)``; all ``n`` cross the rows' ends between the same points.
    """
    pieces = []
    here = number_of(rows, float(paths[0, 0, 0])) if len(paths) else 0
    for point in range(paths.shape[1]):
        there = number_of(rows, float(paths[0, point, 0])) if len(paths) else 0
        step = 1 if there > here else -1
        while here != there:
            edge = rows[here].stop if step == 1 else rows[here].start
            crossing = _at(paths[:, point - 1], paths[:, point], edge)
            pieces += [
                _moved(crossing, rows[here]),
                np.full_like(crossing, np.nan),
                _moved(crossing, rows[here + step]),
            ]
            here += step
        pieces.append(_moved(paths[:, point], rows[here]))
    return np.stack(pieces, 1)


def _moved(points: np.ndarray, row: Row) -> np.ndarray:
    return points + np.array([row.left, row.down])


def _at(before: np.ndarray, after: np.ndarray, x: float) -> np.ndarray:
    """Where the straight lines between points reach ``x``."""
    share = (x - before[:, :1]) / (after[:, :1] - before[:, :1])
    return before + share * (after - before)
