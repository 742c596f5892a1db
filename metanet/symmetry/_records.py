"""What a spec is made of: groups, and how the axes of tensors are made of them."""

from dataclasses import dataclass

from ..tracing import is_integer
from ._axes import Axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Items that may be exchanged, together with everything attached to them.

    Attributes:
        name: after the layer that makes the neurons.
        size: number of items.
        keys: names of other groups: one independent element per index of these (dims keyed by
            head).
        kind: what acts on it: ``"permutation"``, or ``"fixed"`` for a named axis that only serves
            as a key.
        also: what the activations allow besides (``"sign"``, ``"scale"``).
    """

    name: str
    size: int
    keys: tuple[str, ...] = ()
    kind: str = "permutation"
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorAxes:
    """How the axes of one tensor are made.

    Attributes:
        shape, dtype: of the tensor; dtype as text.
        axes: one expression per axis.
        tied_to: the first name of the same tensor, when this is another name of it.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[Axis, ...]
    tied_to: str | None = None

    @property
    def integer(self) -> bool:
        """Whether it holds integers or truth values, which move with the neurons but are no
        weights."""
        return is_integer(self.dtype)

    @property
    def is_complex(self) -> bool:
        """Whether its entries are complex numbers; its axes are those of the tensor, without one
        for the parts."""
        return self.dtype.startswith("complex")
