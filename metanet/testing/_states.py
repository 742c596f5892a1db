"""Random checkpoints that fit an architecture."""

import torch
from torch import Tensor

from ..architecture import Architecture


def random_values(architecture: Architecture, generator: torch.Generator) -> dict[str, Tensor]:
    """Plain random numbers in the architecture's dtypes.

    Tied tensors are shared; there are no integer buffers.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in ((n, t) for n, t in architecture.spec.tensors.items() if not t.integer):
        if tensor.tied_to is not None:
            state[name] = state[tensor.tied_to]
        else:
            dtype = getattr(torch, tensor.dtype)
            wide = torch.complex64 if dtype.is_complex else torch.float32
            state[name] = torch.randn(tuple(tensor.shape), generator=generator, dtype=wide).to(
                dtype
            )
    return state
