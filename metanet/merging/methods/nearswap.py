"""Towards another model where it is near."""

import torch
from torch import Tensor

from .._part import Part
from .._registry import method


@method(
    "nearswap",
    reference="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    base="required",
    models=(1, 1),
)
def nearswap(part: Part, *, t: float = 0.0001) -> Tensor:
    """The model's own number where it is near the base's, else a step towards it (NearSwap).

    Args:
        t: the largest change of a number of the base.
    """
    return torch.clamp(part.tensors[0], part.origin - abs(t), part.origin + abs(t))
