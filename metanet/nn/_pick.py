"""Which rows of a dense batch a piece of the work touches."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Pick(NamedTuple):
    """Some of a template's nodes or blocks, in all graphs of a stack: rows of ``graphs * width``
    numbers.

    Attributes:
        first, last: rows of the batch where they stand one behind the other.
        numbers: of the rows, if only some of these are meant, or in another order, or several
            times.
        graphs: of the stack.
    """

    first: int
    last: int
    numbers: Int[Tensor, " rows"] | None = None
    graphs: int = 1

    def in_batch(self, start: int, graphs: int) -> "Pick":
        """The same in a batch in which the template's stack of so many graphs begins at row
        ``start``."""
        return Pick(start + self.first * graphs, start + self.last * graphs, self.numbers, graphs)

    def rows(self, x: Float[Tensor, "all width"]) -> Float[Tensor, "consecutive row"]:
        """A view of all consecutive rows."""
        return x[self.first : self.last].view(-1, self.graphs * x.shape[1])

    def read(self, x: Float[Tensor, "all width"]) -> Float[Tensor, "rows row"]:
        """The rows meant."""
        rows = self.rows(x)
        return rows if self.numbers is None else rows.index_select(0, self.numbers)

    def add(
        self, x: Float[Tensor, "all width"], values: Float[Tensor, "rows row"], scale: float = 1.0
    ) -> None:
        """``x[rows] += scale * values``, in place."""
        if self.numbers is None:
            self.rows(x).add_(values, alpha=scale)
        else:
            self.rows(x).index_add_(0, self.numbers, values, alpha=scale)


def pick(first: int, last: int, index: Int[Tensor, " rows"], device: torch.device) -> Pick:
    """Rows ``index`` of those from ``first`` to ``last``; without an index where that says the
    same."""
    if torch.equal(index, torch.arange(last - first)):
        return Pick(first, last)
    return Pick(first, last, index.to(device))
