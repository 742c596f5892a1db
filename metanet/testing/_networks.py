"""Random feed-forward networks."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Choice = TypeVar("Choice")


def random_network(seed: int) -> tuple[nn.Module, Tensor]:
    """A random feed-forward network and example inputs.

    Depth, widths, kernels, norms, pooling and skips are all drawn.

    For property tests over architectures that nobody wrote by hand.
    """
    g = torch.Generator().manual_seed(seed)

    def pick(*choices: Choice) -> Choice:
        return choices[int(torch.randint(len(choices), (), generator=g))]

    channels, size = 1 + int(torch.randint(3, (), generator=g)), 6
    layers: list[nn.Module] = []
    width = channels
    for _ in range(pick(1, 2, 3)):
        out = pick(4, 6, 8)
        groups = pick(1, 1, 2) if width % 2 == 0 else 1
        layers.append(nn.Conv2d(width, out, 3, padding=1, groups=groups, bias=pick(True, False)))
        layers.append(pick(nn.BatchNorm2d(out), nn.GroupNorm(2, out), nn.Identity()))
        layers.append(pick(nn.ReLU(), nn.GELU(), nn.Tanh(), nn.SiLU(inplace=True)))
        if pick(True, False):
            layers.append(
                Residual(nn.Sequential(nn.Conv2d(out, out, pick(1, 3), padding="same"), nn.Tanh()))
            )
        width = out
    if pick(True, False):
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        flat = width
    else:
        layers += [pick(nn.AvgPool2d(2), nn.MaxPool2d(2)), nn.Flatten()]
        flat = width * (size // 2) ** 2
    layers += [nn.Linear(flat, 9), pick(nn.Sigmoid(), nn.ELU()), nn.LayerNorm(9), nn.Linear(9, 4)]
    return nn.Sequential(*layers), torch.randn(3, channels, size, size, generator=g)


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
