"""Networks to align, in PyTorch alone, so that every tool's environment can build them. Names are
torchvision's."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions, or three with a bottleneck, beside the residual stream (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = width * (4 if bottleneck else 1)
        if bottleneck:
            plan = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            plan = [(channels, width, 3, stride), (width, out, 3, 1)]
        for n, (a, b, size, step) in enumerate(plan, 1):
            self.add_module(f"conv{n}", nn.Conv2d(a, b, size, step, size // 2, bias=False))
            self.add_module(f"bn{n}", nn.BatchNorm2d(b))
        self.depth = len(plan)
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{n}")(self.get_submodule(f"conv{n}")(y))
            if n < self.depth:
                y = F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A residual network.

    Args:
        blocks: how many, per stage.
        widths: of each stage; every stage but the first halves the image.
        bottleneck: three convolutions a block, the residual stream four times as wide.
        images: channels of the input.
        classes: of the output.
        small: for small images: a first convolution of 3x3 and no pooling after it.
    """

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], bottleneck: bool = False, images: int = 3,
        classes: int = 1000, small: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        size, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(images, widths[0], size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        channels = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
            made = []
            for n in range(count):
                made.append(Block(channels, width, 2 if n == 0 and stage > 1 else 1, bottleneck))
                channels = width * (4 if bottleneck else 1)
            self.add_module(f"layer{stage}", nn.Sequential(*made))
        self.stages = len(blocks)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def mlp(width: int = 512, hidden: int = 3, inputs: int = 784, classes: int = 10) -> nn.Sequential:
    """Linear and ReLU in turn; images are flattened before."""
    sizes = [inputs, *[width] * hidden, classes]
    layers = [
        m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1])


NETWORKS = {
    "mlp": mlp,
    "resnet18": lambda: ResNet([2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet50": lambda: ResNet([3, 4, 6, 3], [64, 128, 256, 512], bottleneck=True),
}
"""What ``benchmarks/alignment.py`` measures, by name."""

EXAMPLES = {"mlp": (2, 784), "resnet18": (2, 3, 64, 64), "resnet50": (2, 3, 64, 64)}
"""Shapes of inputs."""


def random_state(name: str, seed: int) -> dict[str, Tensor]:
    """A state dict with every parameter and every statistic drawn: no two neurons alike, no norm at
    its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes: Mapping[str, Tensor] = NETWORKS[name]().state_dict()
    state = {}
    for key, like in shapes.items():
        kind = key.rpartition(".")[2]
        if not like.is_floating_point():
            state[key] = torch.zeros((), dtype=like.dtype)
        elif kind == "running_var":
            state[key] = 0.5 + torch.rand(like.shape, generator=generator)
        elif like.ndim == 1 and key.replace(".bias", ".weight") in shapes and _is_norm(key, shapes):
            state[key] = (kind == "weight") + 0.2 * torch.randn(like.shape, generator=generator)
        else:
            inputs = shapes[key.replace(".bias", ".weight")][0].numel()
            state[key] = (2 * torch.rand(like.shape, generator=generator) - 1) / inputs**0.5
    return state


def _is_norm(key: str, shapes: Mapping[str, Tensor]) -> bool:
    return key.rpartition(".")[0] + ".running_mean" in shapes
