"""The networks of a merge, one at a time in one copy of the module; data of all of them, or of each
its own."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MetanetError
from ..evaluation import entries, repeatable
from ..tracing import is_integer, tensors_in
from ._average import average
from ._part import Problem


class DataPerModel:
    """Data of which every model has its own, in the order of the models: what each was trained on,
    say.

    What reads data without asking whose it is gets all of it, one model's after the other's.

    >>> import torch
    >>> mine, yours = [(torch.ones(1, 2),)], [(torch.zeros(1, 2),)]
    >>> len(list(DataPerModel([mine, yours])))
    2

    Args:
        each: batches for every model, readable again and again.
    """

    def __init__(self, each: Sequence[Iterable[Any]]) -> None:
        self.each = [repeatable(data) for data in each]

    def __iter__(self) -> Iterator[Any]:
        for data in self.each:
            yield from data


def data_of(problem: Problem, model: int) -> Iterable[Any]:
    """The batches of one model.

    Raises:
        MetanetError: there is not one set of data for each model.
    """
    if not isinstance(problem.data, DataPerModel):
        return problem.data
    if len(problem.data.each) != len(problem.models):
        given, wanted = len(problem.data.each), len(problem.models)
        raise MetanetError(
            f"DataPerModel has data of {given} models, but {wanted} are merged: give one for each"
        )
    return problem.data.each[model]


def working_copy(problem: Problem) -> nn.Module:
    """A copy of the module that checkpoints can be loaded into: on the device, in eval mode, in
    float32 or wider.

    Raises:
        MetanetError: the module is on the meta device, where nothing runs.
    """
    if any(t.is_meta for t in (*problem.model.parameters(), *problem.model.buffers())):
        raise MetanetError(
            "the module is on the meta device and can't run: make it with values, on the CPU say"
        )
    network = copy.deepcopy(problem.model).to(problem.device).eval().requires_grad_(False)
    narrow = any(
        t.is_floating_point() and t.dtype.itemsize < 4
        for t in (*network.parameters(), *network.buffers())
    )
    return network.float() if narrow else network


@torch.no_grad()
def load(network: nn.Module, read: Callable[[str], Tensor] | Mapping[str, Tensor]) -> nn.Module:
    """Write tensors into a network, tied ones once.

    Args:
        network: a working copy.
        read: a checkpoint by the network's names, or what makes a tensor of a name; a ``KeyError``
            leaves a buffer of integers as it is.
    """
    read = read.__getitem__ if isinstance(read, Mapping) else read
    tensors, first = entries(network)
    for name, tensor in tensors.items():
        if first[name] != name:
            continue
        try:
            tensor.copy_(read(name))
        except KeyError:
            if not is_integer(tensor.dtype):
                raise
    return network


def averaged(
    problem: Problem, chosen: Sequence[int], weights: Sequence[float], who: str
) -> Callable[[str], Tensor]:
    """Makes the average of some models, name by name; integers are the first model's."""

    def read(name: str) -> Tensor:
        if is_integer(problem.models[0].dtypes[name]):
            return problem.models[0][name]
        return average(
            wide([problem.models[k][name] for k in chosen], problem.device), weights, who
        )

    return read


def wide(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """In the one dtype that merges compute in: float32, or wider where one of them is."""
    dtype = reduce(
        torch.promote_types, (t.dtype for t in tensors if t.dtype.itemsize > 1), torch.float32
    )
    return [t.to(device, dtype) for t in tensors]


def first_samples(data: Iterable[Any], samples: int | None) -> Iterator[Any]:
    """Batches until so many samples have come, the last one cut.

    Raises:
        MetanetError: the number is not positive.
    """
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        raise MetanetError(
            f"samples={samples!r}: give a number of samples, 1 or more, or null for all"
        )
    left = samples
    for batch in data:
        size = batch_size(batch)
        if left is None or size <= left:
            yield batch
        else:
            yield cut(batch, size, 0, left)
        left = None if left is None else left - size
        if left is not None and left <= 0:
            return


def batch_size(batch: Any) -> int:
    """Samples of a batch."""
    tensor = next(tensors_in(batch), None)
    if tensor is None or not tensor.ndim:
        raise MetanetError(
            f"a batch of the data has no tensor of samples, it is a {type(batch).__name__}"
        )
    return len(tensor)


def cut(batch: Any, size: int, start: int, stop: int) -> Any:
    """Some samples of a batch: of every tensor that has one entry for each sample, these
    entries."""
    if isinstance(batch, Tensor):
        return batch[start:stop] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {k: cut(v, size, start, stop) for k, v in batch.items()}
    return (
        type(batch)(cut(v, size, start, stop) for v in batch)
        if type(batch) in (list, tuple)
        else batch
    )
