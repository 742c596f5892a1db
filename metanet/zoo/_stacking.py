"""Networks of one architecture, one above the other, and what is known of each as columns.

::

    {"w": (3, 4)}                               columns   quality  0.9
    {"w": (3, 4)}   ->  {"w": (2, 3, 4)}                           0.4
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tracing import is_integer
from ._errors import ZooError

States = Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]
"""State dicts of networks, or one of tensors that are stacked already."""


def stacked(states: States, name: str) -> dict[str, Tensor]:
    """Every tensor of all networks, ``[networks, ...]``, in the order of the first state.

    Integer buffers that some networks lack are left out, as library versions differ in which they
    store.

    Args:
        states: of the networks.
        name: of their architecture, for messages.

    Raises:
        ZooError: there is no network, or they differ in names or shapes.
    """
    if isinstance(states, Mapping):
        return _checked(dict(states), name)
    networks = [dict(state) for state in states]
    if not networks:
        raise ZooError(f"{name}: a population of no networks; give one state at least")
    examples = {key: tensor for network in networks for key, tensor in network.items()}
    absent = {key for key in examples if any(key not in network for network in networks)}
    optional = {key for key in absent if is_integer(examples[key].dtype)}
    for number, network in enumerate(networks):
        _compare(network, networks[0], absent - optional, f"{name}: network {number}")
    return {
        key: torch.stack([network[key] for network in networks])
        for key in networks[0]
        if key not in absent
    }


def _compare(
    network: Mapping[str, Tensor], first: Mapping[str, Tensor], needed: set[str], who: str
) -> None:
    """Refuse a network of which other networks have tensors that it lacks, or of other shapes."""
    lacking = sorted(key for key in needed if key not in network)
    if lacking:
        raise ZooError(f"{who} lacks {', '.join(lacking[:5])}, which others have")
    for key, tensor in network.items():
        if key in first and tensor.shape != first[key].shape:
            raise ZooError(
                f"{who}: {key} is {tuple(tensor.shape)}, that of the first network "
                f"{tuple(first[key].shape)}. Networks of other sizes are another population"
            )


def _checked(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Tensors that are said to be stacked: they are of equally many networks."""
    flat = [key for key, tensor in state.items() if tensor.ndim == 0]
    if flat:
        raise ZooError(f"{name}: {flat[0]} is a single number, expected [networks, ...]")
    counts = {key: len(tensor) for key, tensor in state.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key} {count}" for key, count in list(counts.items())[:5])
        raise ZooError(f"{name}: tensors of unequal numbers of networks: {listed}")
    if not counts or not next(iter(counts.values())):
        raise ZooError(f"{name}: a population of no networks; give one state at least")
    return state


def columns(labels: Mapping[str, Any], count: int, name: str) -> dict[str, np.ndarray]:
    """Labels as columns of a table.

    Args:
        labels: lists, arrays or tensors of one value for each network.
        count: networks.
        name: of their architecture, for messages.

    Raises:
        ZooError: a column of another length.
    """
    table = {column: np.asarray(values) for column, values in labels.items()}
    for column, values in table.items():
        if values.shape != (count,):
            raise ZooError(
                f"{name}: the label {column!r} is {values.shape}, expected one value for each of "
                f"the {count} networks, ({count},)"
            )
    return table


def joined(tables: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tables of several architectures, one below the other, with the columns every zoo has.

    ``id`` and ``run`` are made where no label gives them: every network is a run of its own.

    Args:
        tables: by architecture; each has at least one column, of equal lengths.

    Raises:
        ZooError: they differ in their columns, or two networks have one ``id``.
    """
    first, *others = tables
    for other in others:
        differing = set(tables[other]) ^ set(tables[first])
        if differing:
            raise ZooError(
                f"{first} and {other} are not known by the same labels: "
                f"{', '.join(sorted(differing))} is of one of them only"
            )
    merged = {
        column: np.concatenate([tables[name][column] for name in tables])
        for column in tables[first]
    }
    ids, seen = np.unique(merged["id"].astype(str), return_counts=True)
    if (seen > 1).any():
        raise ZooError(
            f"two networks have the id {str(ids[seen > 1][0])!r}: ids tell networks apart"
        )
    return merged


def with_ids(table: Mapping[str, np.ndarray], name: str, count: int) -> dict[str, np.ndarray]:
    """A table with the columns ``id``, ``run`` and ``architecture`` in front of its own."""
    numbered = np.array([f"{name}-{number:05d}" for number in range(count)])
    ids = table.get("id", numbered)
    front = {"id": ids, "run": table.get("run", ids), "architecture": np.full(count, name)}
    return front | {column: values for column, values in table.items() if column not in front}
