"""A tensor as a rule sees it."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ._leaves import Expr


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor as a rule sees it: ``left[-1]`` is the expression of its last axis.

    Attributes:
        value: its number in the trace.
        shape: of the recorded example.
        axes: one expression per axis.
        dtype: as text, e.g. ``"int64"``.
        constant: its values, if they depend on neither inputs nor parameters.
        layout: strides and storage offset.
        label: for integers that name items (``topk``'s indices): the axis whose items they name.
        ident: which integers these are: the same through views and copies.
    """

    value: int
    shape: tuple[int, ...]
    axes: tuple[Expr, ...]
    dtype: str = "float32"
    constant: Tensor | None = None
    layout: tuple[tuple[int, ...], int] = ((), 0)
    label: Expr | None = None
    ident: int = -1

    def __getitem__(self, axis: int) -> Expr:
        return self.axes[axis]

    def __iter__(self) -> Iterator[Expr]:
        return iter(self.axes)

    def __len__(self) -> int:
        return len(self.axes)

    def replaced(self, axis: int, *new: Expr) -> tuple[Expr, ...]:
        """Its axes with others in place of one."""
        return (*self.axes[:axis], *new, *self.axes[axis + 1 :])

    def full_size(self, back: int, size: int) -> bool:
        """Whether it has a size on the axis that is so many from the back, or is broadcast there."""
        return len(self) >= back and self.shape[-back] == size

    def touched(self) -> Iterator[Expr]:
        """All axes that an operation touches which is given the tensor: its own, and the one whose
        items its integers name."""
        yield from self.axes
        if self.label is not None:
            yield self.label
