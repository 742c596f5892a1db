"""Reading the tensors of one checkpoint, changed on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Change = Callable[[str, Tensor], Tensor]
"""``change(name, tensor)`` gives the tensor that a derived checkpoint has under a name."""


@dataclass(frozen=True)
class Derived:
    """What :meth:`Checkpoint.mapped` reads by; pickles if its parts do.

    Attributes:
        read: gives the tensor of a name in the file.
        stored: name of the derived checkpoint -> name in the file.
        change: what is made of the tensor.
    """

    read: Callable[[str], Tensor]
    stored: Mapping[str, str]
    change: Change

    def __call__(self, name: str) -> Tensor:
        return self.change(name, self.read(self.stored[name]))
