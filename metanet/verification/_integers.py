"""Other values for the buffers of integers and truth values that a network owns: what training may
leave in them."""

import torch
from torch import Tensor


def redraw_integers(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Values that are as legal as the ones that are there, as far as these tell.

    Truth values: random bits, of both kinds in every row of the last axis, so that a mask hides
    neither all nor nothing. Integers: drawn from those that are there (an index stays within the
    axis that it was made for); where all are alike, from that number on to 0 and 1: a mask of ones,
    the number of the first row. Counters, numbers without an axis, stay.

    >>> generator = torch.Generator().manual_seed(0)
    >>> redraw_integers(torch.ones(4, dtype=torch.bool), generator).sum() in (1, 2, 3)
    True
    """
    if tensor.ndim == 0 or tensor.numel() < 2:
        return tensor.clone()
    if tensor.dtype == torch.bool:
        return _bits(tensor, generator)
    values = tensor.detach().cpu().unique()
    if len(values) == 1:
        # all are 3: drawn from 0, 1, 2, 3
        least = min(0, int(values))
        most = max(1, int(values))
        if most - least < _MANY:
            values = torch.arange(least, most + 1).to(values.dtype)
    picks = torch.randint(len(values), tuple(tensor.shape), generator=generator)
    return values[picks].to(tensor.device)


_MANY = 2**16


def _bits(tensor: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.rand(tuple(tensor.shape), generator=generator)
    bits = noise < 0.5
    if tensor.shape[-1] > 1:  # of both kinds in every row
        bits = bits.scatter(-1, noise.argmax(-1, keepdim=True), False)
        bits = bits.scatter(-1, noise.argmin(-1, keepdim=True), True)
    return bits.to(tensor.device)
