"""What a zoo is once it is in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .. import trust
from ..tracing import is_integer


def sample_inputs(
    shape: Sequence[int], bounds: Sequence[float] = (0.0, 1.0), batch: int = 2
) -> Float[Tensor, "batch ..."]:
    """Inputs of ``shape`` each, the same random ones every time, uniform between the bounds."""
    low, high = bounds
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, *shape, generator=generator) * (high - low) + low


@dataclass(frozen=True, kw_only=True)
class Population:
    """All networks of one architecture in a zoo, stacked."""

    architecture: str
    """Its name in this zoo."""
    ref: str
    """The factory, ``package.module:factory``."""
    arch_args: dict[str, Any]
    """Keyword arguments of the factory, plain JSON."""
    input_shape: tuple[int, ...]
    """Of one sample."""
    state: dict[str, Tensor]
    """Name -> ``[N, ...]``, in the order of ``module.state_dict()``."""
    rows: Int[Tensor, " n"]
    """Row of each network in ``Zoo.table``."""
    input_range: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest input value that the networks were made for."""
    named_in: Path | None = None
    """The folder of the file that says all this; None where the user's own configuration does."""

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        parameters = sum(t[0].numel() for t in self.state.values() if not is_integer(t.dtype))
        return f"Population({self.architecture}: {len(self)} networks of {parameters:,} numbers, {self.ref})"

    def build(self) -> nn.Module:
        """A freshly initialised network of this architecture, in evaluation mode.

        Raises:
            TrustError: a file names its code, and the user has not said that the file's folder is
                to be trusted.
            MetanetError: there is no such code, or it makes no network of these arguments.
        """
        from ..sources import build_within, load_source

        def make() -> nn.Module:
            return load_source(self.ref, **self.arch_args)

        if self.named_in is None:
            return make().eval()
        trust.require([self.ref], self.named_in)
        if not trust.is_open(self.ref):
            return make().eval()  # code that the user trusts, which need not work without memory
        shapes = {name: tensor.shape[1:] for name, tensor in self.state.items()}
        return build_within(
            make, shapes, f"{self.named_in}: architecture {self.architecture!r}"
        ).eval()

    def example(self, batch: int = 2) -> Float[Tensor, "batch ..."]:
        """The same random inputs every time, uniform in ``input_range``."""
        return sample_inputs(self.input_shape, self.input_range, batch)

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """The state of one network (views, not copies)."""
        return {name: tensor[index] for name, tensor in self.state.items()}


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """A set of trained networks with what is known of each."""

    name: str
    path: Path | None
    """The folder it lies in; None if it lies nowhere."""
    table: dict[str, np.ndarray]
    """Columns with one entry per network: ``id``, ``run`` (what a split must not cut through),
    ``architecture``, ..."""
    populations: dict[str, Population]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    """Long format, one entry per network and epoch: ``id``, ``epoch`` (from 1), then what was
    recorded."""
    unseen: tuple[str, ...] = ()
    """Architectures meant to be kept out of training, to see what a model makes of one that it
    never saw."""

    nan: str = "drop"
    """What becomes of networks without a finite label: ``drop``, ``keep`` or ``error``."""

    pictures: Callable[[Int[Tensor, " k"]], tuple[Tensor, Tensor]] | None = None
    """For networks that stand for images: rows of the table -> originals and renderings, each ``(k,
    size, size)``."""

    def __len__(self) -> int:
        return sum(len(population) for population in self.populations.values())

    def __iter__(self) -> Iterator[Population]:
        return iter(self.populations.values())

    def __repr__(self) -> str:
        columns = ", ".join(self.table)
        lines = [f"Zoo({self.name}: {len(self)} networks in {self.path}; columns {columns})"]
        return "\n  ".join(lines + [repr(population) for population in self.populations.values()])
