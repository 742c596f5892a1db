"""Averages of the networks of a merge, made tensor by tensor."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ..evaluation import wide
from ..tracing import is_integer
from ._average import average
from ._part import Problem


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
