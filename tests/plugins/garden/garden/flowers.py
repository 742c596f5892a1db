"""A zoo: small networks whose weights are as large as they are vigorous."""

from dataclasses import dataclass

import torch
from torch import nn

from metanet.zoo import Blueprint, Population, Zoo, register


def flower(width: int = 5) -> nn.Module:
    """The architecture of all networks."""
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


@register("flowers")
@dataclass(frozen=True)
class Flowers:
    """Random networks, each scaled by a number that is its label.

    Args:
        networks: how many.
        width: of their hidden layer.
        seed: of weights and labels.
    """

    networks: int = 24
    width: int = 5
    seed: int = 0

    def load(self, progress: bool = True) -> Zoo:
        """The zoo; it is made anew each time, and lies nowhere."""
        generator = torch.Generator().manual_seed(self.seed)
        vigour = torch.rand(self.networks, generator=generator) + 0.5
        states = {}
        for name, tensor in flower(self.width).state_dict().items():
            drawn = torch.randn(self.networks, *tensor.shape, generator=generator)
            states[name] = drawn * vigour.reshape(-1, *[1] * tensor.dim())
        architecture = Blueprint(f"{__name__}:flower", {"width": self.width}, input_shape=(4,))
        return Zoo.of("flowers", Population.of(states, architecture, {"vigour": vigour}))
