"""Architectures that the laws are tested over: name -> (module, example inputs)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metanet.testing import Residual


class Siren(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.seq = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.seq[:-1]:
            x = torch.sin(30 * layer(x))
        return self.seq[-1](x) + 0.5


class Basic(nn.Module):
    """A ResNet block with a projection on the shortcut."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.short = nn.Sequential(nn.Conv2d(a, b, 1, 2, bias=False), nn.BatchNorm2d(b))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.short(x)
        return self.relu(y)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = (
            nn.Linear(4, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 3),
        )
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(torch.tanh(self.stem(x))))
        return self.head(torch.tanh(self.b(x)))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 10)
    )


def cnn_flatten() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def cnn_batchnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def residual() -> nn.Module:
    block = Residual(
        nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(5, 6, 3, padding=1))
    )
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        block,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Basic(4, 6),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 1, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 6, 2, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.LayerNorm(8),
        nn.GELU(),
        nn.Linear(8, 6),
        nn.Softmax(-1),
        nn.Linear(6, 10),
    )


def image() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, image),
    "siren": (lambda: Siren(2, 16, 16, 1), lambda: torch.rand(5, 2)),
    "cnn_flatten": (cnn_flatten, image),
    "cnn_batchnorm": (cnn_batchnorm, image),
    "residual": (residual, image),
    "resnet": (resnet, image),
    "grouped": (grouped, image),
    "normed": (normed, image),
    "tied": (Tied, lambda: torch.randn(5, 4)),
}
# tensors whose relabelling the function cannot see, and why
UNSEEN: dict[str, tuple[str, ...]] = {}
