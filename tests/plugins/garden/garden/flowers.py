"""A zoo: small networks whose weights are as large as they are vigorous."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from metanet.zoo import Population, Zoo, register


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
        rows = torch.arange(self.networks)
        state = {}
        for name, tensor in flower(self.width).state_dict().items():
            drawn = torch.randn(self.networks, *tensor.shape, generator=generator)
            state[name] = drawn * vigour.reshape(-1, *[1] * tensor.dim())
        population = Population(
            architecture="flower",
            ref=f"{__name__}:flower",
            arch_args={"width": self.width},
            input_shape=(4,),
            state=state,
            rows=rows,
        )
        table = {
            "id": rows.numpy().astype(str),
            "run": rows.numpy(),
            "architecture": np.array(["flower"] * self.networks),
            "vigour": vigour.numpy(),
        }
        return Zoo(name="flowers", path=None, table=table, populations={"flower": population})
