"""Where networks run: one copy of a module, into which one checkpoint after the other is loaded."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ..errors import MetanetError
from ..tracing import is_integer
from ._fitting import entries


def working_copy(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a module that can run and be written to, in eval mode, in float32 or wider.

    Args:
        module: it is not changed.
        device: where the copy is.

    Raises:
        MetanetError: the module is on the meta device, where nothing runs.
    """
    network = still_copy(module, device)
    narrow = any(t.is_floating_point() and t.dtype.itemsize < 4 for t in _values(network))
    return network.float() if narrow else network


def still_copy(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a module that can run and be written to, in eval mode, in its own dtypes.

    Raises:
        MetanetError: the module is on the meta device, where nothing runs.
    """
    if any(tensor.is_meta for tensor in _values(module)):
        raise MetanetError(
            "the module is on the meta device and can't run: make it with values, on the CPU say"
        )
    return copy.deepcopy(module).to(device).eval().requires_grad_(False)


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


def wide(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors in the one dtype in which sums of them are made, see :func:`wide_dtype`."""
    dtype = wide_dtype(tensor.dtype for tensor in tensors)
    return [tensor.to(device, dtype) for tensor in tensors]


def wide_dtype(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The dtype of sums: float32, or wider where one of the dtypes is.

    8-bit floats, which promote to nothing, count as narrow.

    >>> import torch
    >>> wide_dtype([torch.bfloat16, torch.float64]), wide_dtype([torch.float8_e4m3fn])
    (torch.float64, torch.float32)
    """
    return reduce(torch.promote_types, (d for d in dtypes if d.itemsize > 1), torch.float32)


def _values(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
