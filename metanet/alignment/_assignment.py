"""Linear assignment: which item of one side goes with which of the other, so that the sum of scores
is largest.

scipy's solver is the core and the reference. Where lapx is installed, its ``lapjvr`` solves the
same problem several times faster. Where scores are equal the two may pair differently.

Adding a number to a column of the scores changes no assignment, but how long the solvers search. So
the columns are centred first (several times faster on products of weights), and a problem that is
solved again after a small change gets the prices of its last solution: then nearly every row finds
its column at once (some twenty times faster).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import MetanetError

_SMALL = 48  # below this size the calls cost more than the solving, and scipy's is the lighter one
_ROUNDS = 2  # of raising prices; more cost more than they save


@dataclass
class Prices:
    """What the columns of a problem cost in its last solution (its dual variables, approximately).

    Attributes:
        columns: ``(n,)``, or ``None`` before the first solution.
    """

    columns: np.ndarray | None = None

    def update(self, scores: np.ndarray, assigned: np.ndarray) -> None:
        """Raise prices until no row would rather have another's column, or nearly so."""
        earned = np.take_along_axis(scores, assigned[:, None], 1)[:, 0]
        prices = scores.mean(0) if self.columns is None else self.columns
        for _ in range(_ROUNDS):
            offers = scores - (earned - prices[assigned])[:, None]
            prices = np.maximum(prices, offers.max(0))
        self.columns = prices - prices.mean()


@cache
def _lapx() -> Any:
    """lapx's solver, or ``None``: ``lap``, another package, has the same module name but not this
    function."""
    try:
        import lap
    except ImportError:
        return None
    return getattr(lap, "lapjvr", None)


def assign(scores: np.ndarray, prices: Prices | None = None) -> np.ndarray:
    """The assignment with the largest sum of scores, for one matrix or for many.

    Args:
        scores: ``(..., n, n)``, floating.
        prices: of one matrix that is solved again and again; brought up to date.

    Returns:
        For every row its column, ``(..., n)`` int64.

    Raises:
        MetanetError: a matrix is not square, or a score is NaN or infinite.
    """
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2]:
        raise MetanetError(f"scores must be square matrices (..., n, n), got shape {scores.shape}")
    if not np.isfinite(scores).all():  # lapx takes NaN without a word
        raise MetanetError(
            f"{np.count_nonzero(~np.isfinite(scores)):,} of {scores.size:,} scores are NaN or infinite: "
            "the values they are made of are, or overflow when multiplied"
        )
    if prices is not None:
        columns = _solve(scores, prices.columns)
        prices.update(scores, columns)
        return columns
    n = scores.shape[-1]
    out = np.empty(scores.shape[:-1], np.int64)
    for matrix, columns in zip(scores.reshape(-1, n, n), out.reshape(-1, n), strict=True):
        columns[:] = _solve(matrix, None)
    return out


def _solve(scores: np.ndarray, prices: np.ndarray | None) -> np.ndarray:
    if len(scores) < _SMALL:
        return linear_sum_assignment(scores, maximize=True)[1]
    costs = scores - (scores.mean(0) if prices is None else prices)
    np.subtract(costs.max(1, keepdims=True), costs, out=costs)
    fast = _lapx()
    if fast is None:
        columns = linear_sum_assignment(costs)[1]
    else:
        columns = fast(costs, return_cost=False)[1]
    return columns.astype(np.int64, copy=False)


def total(scores: np.ndarray, columns: np.ndarray) -> np.ndarray | np.floating:
    """The sum of scores of an assignment, in float64: ``(..., n, n)`` and ``(..., n)`` give
    ``(...)``."""
    return np.take_along_axis(scores, columns[..., None], -1)[..., 0].sum(-1, dtype=np.float64)
