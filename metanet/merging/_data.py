"""Data that networks of a merge are run on: of all of them, or of each its own."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import MetanetError
from ..evaluation import cut, repeatable
from ..tracing import tensors_in
from ._part import Problem


class DataPerModel:
    """Data of which every model has its own.

    In the order of the models: what each was trained on, say.

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
    data = problem.batches
    if not isinstance(data, DataPerModel):
        return data
    if len(data.each) != len(problem.models):
        raise MetanetError(
            f"DataPerModel has data of {len(data.each)} models, but {len(problem.models)} are "
            "merged: give one for each"
        )
    return data.each[model]


def first_samples(data: Iterable[Any], samples: int | None) -> Iterator[Any]:
    """Batches until so many samples have come, the last one cut.

    Raises:
        MetanetError: the number is not positive.
    """
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        raise MetanetError(
            f"samples={samples!r}: give a number of samples, 1 or more, or null for all"
        )
    lacking = samples
    for batch in data:
        if lacking is None:
            yield batch
            continue
        size = batch_size(batch)
        yield batch if size <= lacking else cut(batch, size, 0, lacking)
        lacking -= size
        if lacking <= 0:
            return


def batch_size(batch: Any) -> int:
    """Samples of a batch."""
    tensor = next(tensors_in(batch), None)
    if tensor is None or not tensor.ndim:
        raise MetanetError(
            f"a batch of the data has no tensor of samples, it is a {type(batch).__name__}"
        )
    return len(tensor)
