"""What a task is: a target in the zoo's table, a loss, metrics and plots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..documents import Document, validated
from ..errors import MetanetError
from ..registry import Registry
from ..zoo import Population, Zoo, settle_labels, settle_weights
from ._data import Member, WeightData, split_runs, trace_population

if TYPE_CHECKING:
    from ..architecture import Architecture

TASKS: Registry[type["Task"]] = Registry("task", package="metanet.tasks", group="metanet.tasks")
"""Every task by its name: what a saved model may name."""


def register(name: str) -> Callable[[type["Task"]], type["Task"]]:
    """Registers a task under a name, by which a saved model names it.

    Raises:
        MetanetError: there are two of that name, or what is registered is no task.
    """

    def decorate(cls: type["Task"]) -> type["Task"]:
        if not (isinstance(cls, type) and issubclass(cls, Task)):
            raise MetanetError(
                f"task {name!r}: {cls!r} is no task: expected a class derived from metanet.tasks.Task"
            )
        return TASKS.add(name, cls)

    return decorate


@dataclass(kw_only=True)
class Task:
    """Base of all tasks.

    A new one overrides the methods that differ, and is registered by :func:`register`.

    It is named by ``_target_`` in ``conf/task/``. What :meth:`fit_scale` learns is kept with a
    saved model as :meth:`scale` gives it, and put back by :meth:`restore` after a check against
    ``Scale``.

    Args:
        label: column of the zoo's table.
        unseen: architectures kept out of training, evaluated as a split of their own; the zoo's
            choice when left out.
        architectures: use these only; all when empty.
        val, test: fractions of the runs.
        batch_size: networks a step, over all processes.
        split_seed: of the division into splits; the run's own seed when left out.
    """

    Scale: ClassVar[type[Document] | None] = None  # what scale() gives

    label: str
    unseen: Sequence[str] | None = None
    architectures: Sequence[str] = ()
    val: float = 0.1
    test: float = 0.2
    batch_size: int = 64
    split_seed: int | None = None
    monitor: str = field(
        default="", init=False
    )  # metric of the validation split that chooses the best epoch
    out_dim: int = field(default=1, init=False)

    # ---------------------------------------------------------------- data

    def column(self, zoo: Zoo) -> np.ndarray:
        """The label's column.

        Raises:
            MetanetError: the zoo's table has no such column.
        """
        if self.label not in zoo.table:
            raise MetanetError(
                f"label={self.label}: the zoo's table has the columns {', '.join(zoo.table)}"
            )
        return np.asarray(zoo.table[self.label])

    def fit_labels(self, zoo: Zoo) -> None:
        """Learn from a zoo what there is to tell apart: the classes, and with them ``out_dim``.

        Called once, by :meth:`data`, before :meth:`targets`; a saved model keeps it by
        :meth:`scale`. Nothing to learn for numbers.
        """

    def targets(self, zoo: Zoo) -> Tensor:
        """``(rows, ...)``: what is to be learned, for each row of the zoo's table; changes nothing."""
        raise NotImplementedError

    def eval_rows(self, zoo: Zoo) -> Tensor | None:
        """Which rows count in validation and test: ``(rows,)`` bool, or all."""
        return None

    def prepare_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Change stacked checkpoints before they become graphs (a canonical form, say)."""
        return state

    def data(self, zoo: Zoo, seed: int, examples: int = 2) -> WeightData:
        """Trace every architecture of the zoo, lay out its checkpoints, and divide them.

        Args:
            seed: of the division, unless the task has its own.
            examples: batch size of the example inputs, for models that run the networks at so many
                probes.

        Raises:
            ZooError: networks without a finite label, which the zoo does not leave out.
        """
        self.column(zoo)
        if zoo.nan == "drop":  # zoos of metanet's own have done so when they were loaded
            zoo = settle_weights(zoo, zoo.nan)
        zoo = settle_labels(zoo, self.label)
        self.fit_labels(zoo)
        members = {}
        for name, population in zoo.populations.items():
            if self.architectures and name not in self.architectures:
                continue
            architecture = trace_population(population, examples)
            members[name] = self.member(population, architecture)
        split_seed = seed if self.split_seed is None else self.split_seed
        unseen = zoo.unseen if self.unseen is None else self.unseen
        splits = split_runs(
            zoo, fractions={"val": self.val, "test": self.test}, unseen=unseen, seed=split_seed,
            eval_rows=self.eval_rows(zoo), architectures=self.architectures,
        )  # fmt: skip
        return WeightData(zoo, members, self.targets(zoo), splits, self.batch_size, seed)

    def member(self, population: Population, architecture: "Architecture") -> Member:
        """A population with its edge values laid out."""
        values = architecture.template.stack(self.prepare_state(population.state)).edge_attr
        return Member(population, architecture, values.float())

    # ---------------------------------------------------------------- learning

    def fit_scale(self, target: Tensor) -> None:
        """Learn the scale of the targets from the training split."""

    def scale(self) -> dict[str, Any]:
        """What :meth:`fit_scale` learned, as plain JSON, kept with the saved model."""
        return {}

    def restore(self, scale: Mapping[str, Any]) -> None:
        """Take over what :meth:`scale` of a saved task gave.

        Args:
            scale: from a file, unchecked.

        Raises:
            MetanetError: it is not of this task.
        """
        if self.Scale is not None:
            validated(self.Scale, dict(scale), f"the scale of the task {type(self).__name__}")
        for name, value in scale.items():
            if name.startswith("_") or callable(getattr(type(self), name, None)):
                raise MetanetError(
                    f"the scale of the task {type(self).__name__} has no {name[:60]!r}"
                )
            setattr(self, name, value)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of raw outputs ``(networks, out_dim)``."""
        raise NotImplementedError

    def predict(self, output: Tensor) -> Tensor:
        """Raw outputs as predictions in the unit of the targets."""
        raise NotImplementedError

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Metrics of a whole split."""
        raise NotImplementedError

    def encode(self, target: Tensor) -> Tensor:
        """Targets as raw outputs: what a model outside the Trainer (StatNN) is fitted to, undone by
        :meth:`predict`."""
        return target

    def plots(self, data: WeightData, predictions: Mapping[str, Tensor]) -> dict[str, Figure]:
        """Figures of the final evaluation by name; ``predictions`` by split, in the order of
        ``data.splits``."""
        return {}

    def describe(self, prediction: Tensor) -> str:
        """One network's prediction ``(...)`` in words, for ``metanet predict``."""
        raise NotImplementedError
