"""From a zoo to batches: architectures traced once, checkpoints as dense stacks, splits by run."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..architecture import Architecture, trace
from ..errors import MetanetError
from ..graph import GraphStack
from ..zoo import Population, Zoo

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightBatch:
    """Networks of a batch, stacked by architecture.

    Attributes:
        stacks: one per architecture that occurs.
        rows: ``(networks,)`` int64, rows of the zoo's table in the order of the stacks.
        target: ``(networks, ...)``, what is to be learned.
        names: of the architecture of each stack.
    """

    stacks: tuple[GraphStack, ...]
    rows: Tensor
    target: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "WeightBatch":
        """The batch on a device; the batch itself stays where it is."""
        stacks = tuple(stack.to(device) for stack in self.stacks)
        return WeightBatch(stacks, self.rows.to(device), self.target.to(device), self.names)


@dataclass(frozen=True, eq=False)
class Member:
    """The checkpoints of one architecture, ready to be batched.

    Attributes:
        population: as the zoo gave it.
        architecture: traced from it.
        values: ``(networks, edges, 1)`` edge values of all its checkpoints.
    """

    population: Population
    architecture: Architecture
    values: Tensor


@dataclass(eq=False)
class WeightData:
    """A zoo split for a task.

    Attributes:
        zoo: where the networks come from.
        members: by architecture name.
        target: ``(rows of the table, ...)``.
        splits: rows of the table by the names ``train``, ``val``, ``test`` and, with unseen
            architectures, ``unseen``.
    """

    zoo: Zoo
    members: Mapping[str, Member]
    target: Tensor
    splits: Mapping[str, Tensor]
    batch_size: int = 64
    seed: int = 0
    place: Tensor = field(init=False)  # (rows, 2): number of the member, position in it

    def __post_init__(self) -> None:
        self.place = torch.full((len(self.target), 2), -1)
        for number, member in enumerate(self.members.values()):
            rows = member.population.rows
            self.place[rows, 0] = number
            self.place[rows, 1] = torch.arange(len(rows))

    def batch(self, rows: Tensor) -> WeightBatch:
        """The networks of these rows, grouped by architecture (the order within one is kept)."""
        numbers, positions = self.place[rows].unbind(1)
        stacks, order, names = [], [], []
        for number, (name, member) in enumerate(self.members.items()):
            of_member = (numbers == number).nonzero().flatten()
            if not len(of_member):
                continue
            values = member.values[positions[of_member]]
            stacks.append(GraphStack(member.architecture.template, values))
            order.append(rows[of_member])
            names.append(name)
        rows = torch.cat(order)
        return WeightBatch(tuple(stacks), rows, self.target[rows], tuple(names))

    def train_loader(self, rank: int = 0, world: int = 1) -> DataLoader:
        """Shuffled batches of the training split; each of ``world`` processes gets its share of
        every batch."""
        sampler = EpochBatches(self.splits["train"], self.batch_size, self.seed, rank, world)
        return DataLoader(_Rows(self), batch_sampler=sampler, collate_fn=_same)

    def eval_loader(self, split: str) -> DataLoader:
        """The whole split in order, in every process: small, and free of the repeats that samplers
        pad with."""
        chunks = [c.tolist() for c in self.splits[split].split(2 * self.batch_size)]
        return DataLoader(_Rows(self), batch_sampler=chunks, collate_fn=_same)

    def stacks(self, split: str, size: int = 256) -> Iterator[WeightBatch]:
        """The split in batches, one architecture each, outside of any loader."""
        rows = self.splits[split]
        for number in range(len(self.members)):
            of_member = rows[self.place[rows, 0] == number]
            for chunk in of_member.split(size):
                if len(chunk):
                    yield self.batch(chunk)


class _Rows(Dataset):
    """Lets a DataLoader fetch a whole batch of rows at once."""

    def __init__(self, data: WeightData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.target)

    def __getitem__(self, row: int) -> WeightBatch:
        return self.data.batch(torch.tensor([row]))

    def __getitems__(self, rows: Sequence[int]) -> WeightBatch:
        return self.data.batch(torch.as_tensor(rows))


def _same(batch: Any) -> WeightBatch:
    """What :meth:`_Rows.__getitems__` gives: a batch already, where a loader expects a list."""
    return batch


class EpochBatches(Sampler[list[int]]):
    """Batches in an order that depends on (seed, epoch) alone: a resumed run sees what an
    undisturbed one would.

    Every process draws the same order and takes its share of each batch; batches are of equal size,
    and what is left over at the end of an epoch differs from epoch to epoch.
    """

    def __init__(
        self, rows: Tensor, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if len(rows) == 0:
            raise MetanetError(
                "the training split is empty: make the zoo larger or the train fraction"
            )
        self.rows, self.seed, self.rank, self.world = rows, seed, rank, world
        self.batch_size = max(world, min(batch_size, len(rows)) // world * world)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            yield batch[self.rank :: self.world].tolist()


def trace_population(population: Population, batch: int = 2) -> Architecture:
    """The architecture of a population, from its module and example inputs."""
    architecture = trace(population.build(), population.example(batch))
    for warning in architecture.warnings:
        _log.warning("%s: %s", population.architecture, warning)
    return architecture


def split_runs(
    zoo: Zoo,
    *,
    fractions: Mapping[str, float],
    unseen: Sequence[str],
    seed: int,
    eval_rows: Tensor | None = None,
    architectures: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Divide the table's rows into train, val, test and unseen; all rows of a run fall on the same
    side.

    A column ``split`` of the table decides instead, where there is one: its rows are ``train``,
    ``val``, ``test`` or ``unseen``. Rows for validation may be missing; a fraction of the training
    runs then takes their place.

    Args:
        zoo: its table has the columns ``run`` and ``architecture``.
        fractions: of the runs for ``val`` and ``test``; the rest trains.
        unseen: architectures kept out of training altogether.
        seed: of the division.
        eval_rows: bool per row; only these count in val and test (one of several fits of an image,
            say).
        architectures: leave out all others; all take part when empty.

    Raises:
        MetanetError: an unseen architecture that the zoo does not have, or a split without rows.
    """
    for key, names in (("unseen", unseen), ("architectures", architectures)):
        unknown = sorted(set(names) - set(zoo.populations))
        if unknown:
            have = ", ".join(zoo.populations)
            raise MetanetError(
                f"task.{key}={list(names)}: the zoo has no {', '.join(unknown)}; it has {have}"
            )
    architecture = np.asarray(zoo.table["architecture"]).astype(str)
    present = np.isin(architecture, list(architectures or zoo.populations))
    hidden = np.isin(architecture, list(unseen)) & present
    stated = np.asarray(zoo.table["split"]).astype(str) if "split" in zoo.table else None
    if stated is not None:
        hidden |= (stated == "unseen") & present
    seen = torch.from_numpy(present & ~hidden)
    _, run = np.unique(np.asarray(zoo.table["run"]).astype(str)[seen.numpy()], return_inverse=True)
    runs = int(run.max()) + 1 if len(run) else 0
    order = torch.randperm(runs, generator=torch.Generator().manual_seed(seed))
    side = torch.zeros(runs, dtype=torch.long)
    val, test = round(fractions["val"] * runs), round(fractions["test"] * runs)
    side[order[:test]], side[order[test : test + val]] = 2, 1
    rows = seen.nonzero().flatten()
    side = side[torch.from_numpy(run)]
    if stated is not None:
        side = _as_stated(stated[rows.numpy()], side)
    out = {name: rows[side == number] for number, name in enumerate(("train", "val", "test"))}
    out["unseen"] = torch.from_numpy(hidden).nonzero().flatten()
    if eval_rows is not None:
        for name in ("val", "test", "unseen"):
            out[name] = out[name][eval_rows[out[name]]]
    empty = [n for n in ("train", "val", "test") if not len(out[n])]
    if empty and stated is not None:
        raise MetanetError(
            f"the column split of the zoo's table leaves {' and '.join(empty)} empty"
        )
    if empty:
        raise MetanetError(
            f"the {' and '.join(empty)} split is empty: {runs} runs at fractions {dict(fractions)}"
        )
    if not len(out["unseen"]):
        del out["unseen"]
    return out


def _as_stated(stated: np.ndarray, drawn: Tensor) -> Tensor:
    """The sides (0 train, 1 val, 2 test) as a table states them; without a val, what was drawn of
    its training rows."""
    names = ("train", "val", "test")
    if unknown := sorted(set(stated) - set(names)):
        raise MetanetError(
            f"the column split of the zoo's table says {', '.join(unknown[:5])[:200]}; choose "
            "train, val, test, unseen"
        )
    side = torch.tensor([names.index(name) for name in stated])
    if not (side == 1).any():
        side[(side == 0) & (drawn == 1)] = 1
    return side
