"""The networks of a merge, one at a time in one copy of the module."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ..errors import MetanetError
from ..evaluation import entries
from ..tracing import is_integer
from ._average import average
from ._part import Problem


def working_copy(problem: Problem) -> nn.Module:
    """A copy of the module that checkpoints can be loaded into: on the device, in eval mode, in
    float32 or wider.

    Raises:
        MetanetError: the module is on the meta device, where nothing runs.
    """
    module = problem.network
    if any(tensor.is_meta for tensor in _values(module)):
        raise MetanetError(
            "the module is on the meta device and can't run: make it with values, on the CPU say"
        )
    network = copy.deepcopy(module).to(problem.device).eval().requires_grad_(False)
    narrow = any(t.is_floating_point() and t.dtype.itemsize < 4 for t in _values(network))
    return network.float() if narrow else network


def _values(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


@torch.no_grad()
def load(network: nn.Module, read: Callable[[str], Tensor] | Mapping[str, Tensor]) -> nn.Module:
    """Write tensors into a network, tied ones once.

    Args:
        network: a working copy.
        read: a checkpoint by the network's names, or what makes a tensor of a name; a ``KeyError``
            leaves a buffer of integers as it is.
    """
    get = read.__getitem__ if isinstance(read, Mapping) else read
    tensors, first = entries(network)
    for name, tensor in tensors.items():
        if first[name] != name:
            continue
        try:
            tensor.copy_(get(name))
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
