"""What a zoo is once it is in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .. import trust
from ..tracing import is_integer
from ._blueprint import Blueprint, sample_inputs
from ._errors import ZooError
from ._stacking import States, columns, joined, stacked, with_ids


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
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    """What is known of each network, until a zoo's table holds it: column -> ``(N,)``."""

    @classmethod
    def of(
        cls,
        states: States,
        architecture: Blueprint,
        labels: Mapping[str, Any] | None = None,
        *,
        rows: Int[Tensor, " n"] | None = None,
        named_in: Path | None = None,
    ) -> "Population":
        """A population of networks and their labels, checked.

        >>> mlp = Blueprint("metanet.zoo.networks:mlp", {"widths": [3]}, input_shape=(1, 8, 8))
        >>> states = [mlp.build().state_dict() for _ in range(4)]
        >>> Population.of(states, mlp, {"quality": [0.9, 0.4, 0.7, 0.1]})
        Population(mlp: 4 networks of 235 numbers, metanet.zoo.networks:mlp)

        Args:
            states: a state dict for each network, or one whose tensors are stacked,
                ``[networks, ...]``; names as in ``module.state_dict()``.
            architecture: how the networks are built.
            labels: column -> one value for each network. ``id`` and ``run`` are made where they are
                left out.
            rows: of the networks in a table that there is already; without one :meth:`Zoo.of` makes
                it of the labels.
            named_in: the folder of the file that says all this, if one does.

        Raises:
            ZooError: there is no network, or they differ in names or shapes; labels of other
                lengths.
        """
        state = stacked(states, architecture.name)
        count = len(next(iter(state.values())))
        low, high = architecture.input_range
        return cls(
            architecture=architecture.name,
            ref=architecture.ref,
            arch_args=dict(architecture.arch_args),
            input_shape=tuple(architecture.input_shape),
            input_range=(low, high),
            state=state,
            rows=torch.arange(count) if rows is None else rows,
            named_in=named_in,
            labels=columns(labels or {}, count, architecture.name),
        )

    @property
    def blueprint(self) -> Blueprint:
        """How its networks are built."""
        return Blueprint(
            self.ref, self.arch_args, self.input_shape, self.input_range, self.architecture
        )

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
        from ..sources import build_within

        if self.named_in is None:
            return self.blueprint.build()
        trust.require([self.ref], self.named_in)
        if not trust.is_open(self.ref):
            # code that the user trusts, which need not work without memory
            return self.blueprint.build()
        shapes = {name: tensor.shape[1:] for name, tensor in self.state.items()}
        place = f"{self.named_in}: architecture {self.architecture!r}"
        return build_within(self.blueprint.build, shapes, place).eval()

    def example(self, batch: int = 2) -> Float[Tensor, "batch ..."]:
        """The same random inputs every time, uniform in ``input_range``: ``(batch, *input_shape)``."""
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

    @classmethod
    def of(
        cls,
        name: str,
        populations: Population | Iterable[Population],
        *,
        path: Path | None = None,
        unseen: Iterable[str] = (),
    ) -> "Zoo":
        """A zoo of populations, whose labels become its table.

        Args:
            name: of the zoo.
            populations: from :meth:`Population.of`; all with the same labels.
            path: the folder it lies in, if any.
            unseen: architectures meant to be kept out of training.

        Raises:
            ZooError: no population, two of one architecture, labels of some only, or two networks
                of one ``id``.
        """
        listed = [populations] if isinstance(populations, Population) else list(populations)
        names = [population.architecture for population in listed]
        if not names or len(set(names)) < len(names):
            raise ZooError(
                f"the zoo {name} is made of {len(names)} populations named {', '.join(names)}: give "
                "one or more, each with a name of its own"
            )
        tables = {p.architecture: with_ids(p.labels, p.architecture, len(p)) for p in listed}
        placed, first = {}, 0
        for population in listed:
            rows = torch.arange(first, first + len(population))
            placed[population.architecture] = replace(population, rows=rows, labels={})
            first += len(population)
        table = joined(tables)
        return cls(name=name, path=path, table=table, populations=placed, unseen=tuple(unseen))

    def __len__(self) -> int:
        return sum(len(population) for population in self.populations.values())

    def __iter__(self) -> Iterator[Population]:
        return iter(self.populations.values())

    def __repr__(self) -> str:
        columns = ", ".join(self.table)
        lines = [f"Zoo({self.name}: {len(self)} networks in {self.path}; columns {columns})"]
        return "\n  ".join(lines + [repr(population) for population in self.populations.values()])
