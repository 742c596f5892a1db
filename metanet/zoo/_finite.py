"""Networks that diverged: a single NaN among the weights of a zoo makes every average of it NaN."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ._errors import ZooError
from ._population import Population, Zoo

log = logging.getLogger(__name__)
CHOICES = ("drop", "keep", "error")
_LISTED = 10  # networks that a message names

Pictures = Callable[[Int[Tensor, " k"]], tuple[Tensor, Tensor]]


def check_choice(nan: Any) -> None:
    """Refuse a value of ``zoo.nan`` that there isn't."""
    if nan not in CHOICES:
        raise ZooError(f"zoo.nan={nan!r}: choose {', '.join(CHOICES)}")


def settle_weights(zoo: Zoo, nan: str) -> Zoo:
    """A zoo without networks whose weights or buffers are NaN or infinite, or as ``nan`` says.

    Args:
        nan: ``drop`` leaves them out, ``keep`` only warns, ``error`` refuses; each names them.

    Raises:
        ZooError: there are some and ``nan=error``; or nothing else is left.
    """
    check_choice(nan)
    finite = np.ones(len(zoo.table["id"]), dtype=bool)
    for population in zoo:
        finite[population.rows.numpy()] = _finite(population).numpy()
    return _settled(replace(zoo, nan=nan), finite, "weights that are NaN or infinite")


def settle_labels(zoo: Zoo, label: str) -> Zoo:
    """Settle what becomes of networks whose label is NaN or infinite.

    The zoo's own choice decides; networks that are kept can't be learned from.

    Raises:
        ZooError: there are some and the choice is not ``drop``; or nothing else is left.
    """
    values = np.asarray(zoo.table[label])
    finite = (
        np.isfinite(values)
        if np.issubdtype(values.dtype, np.floating)
        else np.ones(len(values), dtype=bool)
    )
    strict = replace(zoo, nan="error") if zoo.nan == "keep" else zoo
    return replace(_settled(strict, finite, f"no finite {label!r}"), nan=zoo.nan)


def _finite(population: Population) -> Bool[Tensor, " n"]:
    """Which networks of a population have finite values only."""
    finite = torch.ones(len(population), dtype=torch.bool)
    for tensor in population.state.values():
        if tensor.is_floating_point() or tensor.is_complex():
            # 8-bit floats have no isfinite
            wide = tensor if tensor.element_size() > 1 else tensor.float()
            finite &= wide.isfinite().flatten(1).all(1) if tensor.ndim > 1 else wide.isfinite()
    return finite


def _settled(zoo: Zoo, finite: np.ndarray, what: str) -> Zoo:
    bad = [str(name) for name in np.asarray(zoo.table["id"])[~finite]]
    if not bad:
        return zoo
    more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    listed = ", ".join(bad[:_LISTED])
    networks = f"{len(bad)} of {len(finite)} networks of the zoo {zoo.name}"
    summary = f"{networks} have {what}: {listed}{more}"
    if zoo.nan == "error":
        raise ZooError(
            f"{summary}. Take them out of the table, or leave them out with zoo.nan=drop"
        )
    if zoo.nan == "keep":
        log.warning(
            "%s; they are kept (zoo.nan=keep), and what averages over them becomes NaN", summary
        )
        return zoo
    if not finite.any():
        raise ZooError(f"{summary}; without them nothing is left")
    log.warning("%s; they are left out (zoo.nan=drop)", summary)
    return select(zoo, finite)


def select(zoo: Zoo, kept: np.ndarray) -> Zoo:
    """The networks of some rows of the table (a bool per row); architectures without any are left
    out too."""
    number = np.cumsum(kept) - 1  # of a row among those that stay
    populations = {}
    for name, population in zoo.populations.items():
        mine = torch.from_numpy(kept[population.rows.numpy()])
        if mine.any():
            state = {key: tensor[mine] for key, tensor in population.state.items()}
            rows = torch.from_numpy(number[population.rows[mine].numpy()])
            populations[name] = replace(population, state=state, rows=rows)
    ids = np.asarray(zoo.table["id"])
    curves = np.isin(zoo.curves["id"], ids[kept]) if zoo.curves else None
    old = torch.from_numpy(np.flatnonzero(kept))
    return replace(
        zoo,
        table={name: np.asarray(column)[kept] for name, column in zoo.table.items()},
        populations=populations,
        curves={name: np.asarray(column)[curves] for name, column in zoo.curves.items()},
        unseen=tuple(name for name in zoo.unseen if name in populations),
        pictures=None if zoo.pictures is None else partial(_pictures, zoo.pictures, old),
    )


def _pictures(
    pictures: Pictures, old: Int[Tensor, " n"], rows: Int[Tensor, " k"]
) -> tuple[Tensor, Tensor]:
    return pictures(old[rows])
