"""MLP, VGG, ResNet and DenseNet.

A convolution's kernel positions are fixed, its channels move; BatchNorm stays on the channels of
its input with all four of its tensors; whatever is added must move together, so every residual
stream is one group. Torchvision's models are built on the meta device: a truth needs no weights.
"""

import torch
from torch import Tensor, nn

from ._sheet import Example, Sheet, Truth, library


def _mlp() -> Truth:
    sheet = Sheet()
    sheet.linear("0", sheet.group("a", 8), ".")
    sheet.linear("2", sheet.group("b", 7), "a")
    sheet.linear("4", ".", "b")

    def make() -> Example:
        model = nn.Sequential(
            nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 3)
        )
        return Example(model, (torch.randn(4, 5),), (torch.randn(6, 5),))

    return sheet.truth(make)


def _torchvision(name: str, size: int = 224) -> Example:
    torchvision = library("torchvision")
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    return Example(
        model, (torch.zeros(2, 3, size, size),), (torch.zeros(3, 3, size + 32, size + 32),)
    )


_VGG = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
}


def _vgg(depth: int, norm: bool) -> Truth:
    """A chain: every layer's channels are a group. A 0 is pooling; the flattened map is channel by
    7 x 7 positions."""
    sheet, position, last = Sheet(), 0, "."
    for width in _VGG[depth]:
        if width == 0:
            position += 1
            continue
        channels = sheet.group(f"conv{position}", width)
        sheet.linear(f"features.{position}", channels, last, kernel=2)
        if norm:
            sheet.batch_norm(f"features.{position + 1}", channels)
        position, last = position + (3 if norm else 2), channels
    sheet.linear("classifier.0", sheet.group("hidden0", 4096), f"{last}*49")
    sheet.linear("classifier.3", sheet.group("hidden3", 4096), "hidden0")
    sheet.linear("classifier.6", ".", "hidden3")
    return sheet.truth(lambda: _torchvision(f"vgg{depth}{'_bn' if norm else ''}"))


def _resnet18() -> Truth:
    """Four residual streams (the stem writes the first) and the inner channels of eight blocks."""
    sheet, stream = Sheet(), ""
    for stage, width in enumerate((64, 128, 256, 512), 1):
        before, stream = stream, sheet.group(f"stream{stage}", width)
        if stage == 1:
            sheet.linear("conv1", stream, ".", bias=False, kernel=2)
            sheet.batch_norm("bn1", stream)
        for block in range(2):
            name, first = f"layer{stage}.{block}", block == 0 and stage > 1
            inner = sheet.group(f"{name}.inner", width)
            sheet.linear(f"{name}.conv1", inner, before if first else stream, bias=False, kernel=2)
            sheet.batch_norm(f"{name}.bn1", inner)
            sheet.linear(f"{name}.conv2", stream, inner, bias=False, kernel=2)
            sheet.batch_norm(f"{name}.bn2", stream)
            if first:
                sheet.linear(f"{name}.downsample.0", stream, before, bias=False, kernel=2)
                sheet.batch_norm(f"{name}.downsample.1", stream)
    sheet.linear("fc", ".", stream)
    return sheet.truth(lambda: _torchvision("resnet18"))


def _resnet50() -> Truth:
    """Every stage opens with a projection, the first too: the stem is a group apart from the four
    streams."""
    sheet = Sheet()
    stream = sheet.group("stem", 64)
    sheet.linear("conv1", stream, ".", bias=False, kernel=2)
    sheet.batch_norm("bn1", stream)
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        before, stream = stream, sheet.group(f"stream{stage}", 4 * width)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            a, b = sheet.group(f"{name}.a", width), sheet.group(f"{name}.b", width)
            layers = (("1", a, stream if block else before), ("2", b, a), ("3", stream, b))
            for number, out, inputs in layers:
                sheet.linear(f"{name}.conv{number}", out, inputs, bias=False, kernel=2)
                sheet.batch_norm(f"{name}.bn{number}", out)
            if block == 0:
                sheet.linear(f"{name}.downsample.0", stream, before, bias=False, kernel=2)
                sheet.batch_norm(f"{name}.downsample.1", stream)
    sheet.linear("fc", ".", stream)
    return sheet.truth(lambda: _torchvision("resnet50"))


class Block(nn.Module):
    """Two 3 x 3 convolutions; where the width changes, a projection on the shortcut (option B of He
    et al. 2016)."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(a, b, 3, 1 if a == b else 2, 1, bias=False),
            nn.BatchNorm2d(b),
        )
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.shortcut = nn.Sequential()
        if a != b:
            self.shortcut = nn.Sequential(nn.Conv2d(a, b, 1, 2, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """The CIFAR network of He et al. (2016): three stages of three blocks."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        inputs = (widths[0], *widths)
        self.stages = nn.ModuleList(
            nn.Sequential(Block(a, b), Block(b, b), Block(b, b))
            for a, b in zip(inputs, widths, strict=False)
        )
        self.fc = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def _resnet20() -> Truth:
    """Three streams, of which the stem writes the first, and nine inner widths."""
    sheet, widths = Sheet(), (4, 5, 6)
    stream = sheet.group("stream0", widths[0])
    sheet.linear("conv", stream, ".", bias=False, kernel=2)
    sheet.batch_norm("bn", stream)
    for stage, width in enumerate(widths):
        before = stream
        if stage:
            stream = sheet.group(f"stream{stage}", width)
        for block in range(3):
            name = f"stages.{stage}.{block}"
            inner, inputs = sheet.group(f"{name}.inner", width), before if block == 0 else stream
            sheet.linear(f"{name}.conv1", inner, inputs, bias=False, kernel=2)
            sheet.batch_norm(f"{name}.bn1", inner)
            sheet.linear(f"{name}.conv2", stream, inner, bias=False, kernel=2)
            sheet.batch_norm(f"{name}.bn2", stream)
            if stage and block == 0:
                sheet.linear(f"{name}.shortcut.0", stream, before, bias=False, kernel=2)
                sheet.batch_norm(f"{name}.shortcut.1", stream)
    sheet.linear("fc", ".", stream)
    return sheet.truth(
        lambda: Example(ResNet20(widths), (torch.randn(2, 3, 8, 8),), (torch.randn(3, 3, 12, 12),))
    )


def _densenet121() -> Truth:
    """Nothing is added, everything is kept: a layer reads all groups of its block so far, one
    behind the other."""
    sheet = Sheet()
    last = sheet.group("stem", 64)
    sheet.linear("features.conv0", last, ".", bias=False, kernel=2)
    sheet.batch_norm("features.norm0", last)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        width = sheet.groups[last][0]
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            neck, grown = (
                sheet.group(f"{block}.{layer}.neck", 128),
                sheet.group(f"{block}.{layer}.grown", 32),
            )
            sheet.batch_norm(f"{name}.norm1", last)
            sheet.linear(f"{name}.conv1", neck, last, bias=False, kernel=2)
            sheet.batch_norm(f"{name}.norm2", neck)
            sheet.linear(f"{name}.conv2", grown, neck, bias=False, kernel=2)
            last, width = f"{last} | {grown}", width + 32
        if block < 4:
            name, reduced = (
                f"features.transition{block}",
                sheet.group(f"transition{block}", width // 2),
            )
            sheet.batch_norm(f"{name}.norm", last)
            sheet.linear(f"{name}.conv", reduced, last, bias=False, kernel=2)
            last = reduced
    sheet.batch_norm("features.norm5", last)
    sheet.linear("classifier", ".", last)
    return sheet.truth(lambda: _torchvision("densenet121"))


TRUTHS = {
    "mlp": _mlp(),
    "vgg11": _vgg(11, norm=False),
    "vgg11_bn": _vgg(11, norm=True),
    "vgg16": _vgg(16, norm=False),
    "resnet18": _resnet18(),
    "resnet20": _resnet20(),
    "resnet50": _resnet50(),
    "densenet121": _densenet121(),
}
