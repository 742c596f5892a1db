"""Greedy merging: again and again the two that fit best become one."""

import numpy as np

_GONE = -np.inf


class Pairs:
    """Symmetric scores between items of which more and more are gone, with the best partner of each
    kept at hand.

    So a step costs about as much as reading one row, not the whole matrix.

    Args:
        scores: ``(n, n)`` float64, symmetric; the diagonal is not read. ``-inf``: must not meet.
            Changed in place.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        np.fill_diagonal(scores, _GONE)
        self._partner = scores.argmax(1)
        self._best = np.take_along_axis(scores, self._partner[:, None], 1)[:, 0]
        self._stale = np.zeros(len(scores), bool)  # its partner is gone: the best score is a bound

    def best(self) -> tuple[int, int, float]:
        """The best pair, the smaller number first, and its score; ``-inf`` if none may meet."""
        while self._stale[row := int(self._best.argmax())]:
            self._partner[row] = self.scores[row].argmax()
            self._best[row] = self.scores[row, self._partner[row]]
            self._stale[row] = False
        partner = int(self._partner[row])
        return min(row, partner), max(row, partner), float(self._best[row])

    def join(self, kept: int, gone: int, row: np.ndarray) -> None:
        """One item goes; the other has new scores ``(n,)``, in which ``-inf`` stands for those that
        are gone."""
        row[kept] = row[gone] = _GONE
        self.scores[gone] = self.scores[:, gone] = _GONE
        self.scores[kept] = self.scores[:, kept] = row
        self._stale |= (self._partner == kept) | (self._partner == gone)
        better = row > self._best
        self._best[better], self._partner[better] = row[better], kept
        self._stale[better] = False
        self._best[gone], self._stale[gone] = _GONE, False
        self._partner[kept] = row.argmax()
        self._best[kept], self._stale[kept] = row[self._partner[kept]], False

    def forbid(self, items: np.ndarray) -> None:
        """No two of these may meet any more.

        Args:
            items: ``(n,)`` bool.
        """
        self.scores[np.ix_(items, items)] = _GONE
        self._stale |= items & ~np.isneginf(self._best)
