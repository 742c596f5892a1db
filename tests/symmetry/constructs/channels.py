"""Convolutions, and what moves channels about. Positions and places in kernels are fixed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, images


def chain(*layers: nn.Module) -> nn.Module:
    """Layers by number, then the mean over positions."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def shuffled(first: int, second: int) -> nn.Module:
    """Channels ``(first, n)`` come out of a grouped convolution as ``(n, first)`` and into one of
    ``second`` groups."""
    return chain(
        nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=first), nn.ReLU(),
        nn.ChannelShuffle(first),
        nn.Conv2d(12, 6 if second == 2 else 12, 3, groups=second), nn.ReLU(),
        nn.Conv2d(6 if second == 2 else 12, 4, 1),
    )  # fmt: skip


@construct("g 4, i 3 per g, o 2 per g", {"0": "g*i, .", "2": "g*o, i", "4": "., g*o"})
def grouped() -> Made:
    """Groups may be exchanged, and channels within each."""
    layers = (
        nn.Conv2d(3, 12, 1),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    return chain(*layers), *images()


@construct("a 6, b 5", {"0 2": "a, .", "3": "b, a", "5": "., b"})
def depthwise() -> Made:
    """A kernel for each channel."""
    layers = (
        nn.Conv2d(3, 6, 1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 5, 1),
        nn.ReLU(),
    )
    return chain(*layers, nn.Conv2d(5, 3, 1)), *images()


@construct("g 4, o 2 per g", {"0": "g, .", "2": "g*o, .", "4": "., g*o"})
def depthwise_with_more_channels() -> Made:
    """Two kernels for each channel."""
    layers = (
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    return chain(*layers), *images()


@construct("a 6, b 4", {"0": "a, .", "2.weight": "a, b", "2.bias": "b", "4": "., b"})
def transposed() -> Made:
    """The weight is ``(in, out)``."""
    layers = (
        nn.Conv2d(3, 6, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, 2),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
    )
    return chain(*layers), *images()


@construct(
    "g 2, i 3 per g, o 4 per g",
    {"0": "g*i, .", "2.weight": "g*i, o", "2.bias": "g*o", "4": "., g*o"},
)
def transposed_in_groups() -> Made:
    """The weight is ``(groups in, out)``."""
    layers = (
        nn.Conv2d(3, 6, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 8, 2, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    return chain(*layers), *images()


@construct("g 3, c 2 per g", {"0": "g*c, .", "1": "g*c", "3": "., g*c"})
def group_norm() -> Made:
    """Norm groups may be exchanged, and channels within each."""
    return chain(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 3, 1)), *images()


@construct(
    "n 2, g 2 per n, i 3 per n g, o 2 per n g",
    {"0": "n*g*i, .", "1": "n*g*i", "3": "n*g*o, i", "5": "., n*g*o"},
)
def group_norm_around_groups() -> Made:
    """A convolution of four groups behind a norm of two: its groups within the norm's."""
    layers = (
        nn.Conv2d(3, 12, 1),
        nn.GroupNorm(2, 12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3, groups=4),
        nn.ReLU(),
    )
    return chain(*layers, nn.Conv2d(8, 3, 1)), *images()


@construct(
    "a 4, b 2, c 2, d 4, o 2, p 2, q 2",
    {
        "0": "a | b | c | d, .", "1": "a | b | c | d", "3.weight": "g:(o | p | q), g?(a / b | c / d)",
        "3.bias": "o | p | q", "5": "., o | p | q",
    },
)  # fmt: skip
def group_norm_across_groups() -> Made:
    """Norm groups of 6, convolution groups of 4: where both boundaries run, four stretches of 4, 2,
    2, 4."""
    layers = (
        nn.Conv2d(3, 12, 1),
        nn.GroupNorm(2, 12),
        nn.ReLU(),
        nn.Conv2d(12, 6, 3, groups=3),
        nn.ReLU(),
    )
    return chain(*layers, nn.Conv2d(6, 3, 1)), *images()


@construct("c 6", {"0": "c, .", "1": "c", "3": "., c"})
def batch_norm() -> Made:
    """Scale, shift and running statistics."""
    return chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1)), *images()


@construct("c 6", {"0": "c, .", "1": "c", "3": "., c"})
def instance_norm() -> Made:
    """Statistics of each image and channel."""
    layers = nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), nn.Conv2d(6, 3, 1)
    return chain(*layers), *images()


@construct("c 6", {"0": "c, .", "1": "c", "3": "., c"})
def instance_norm_with_statistics() -> Made:
    """With running statistics, as BatchNorm."""
    norm = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
    return chain(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 3, 1)), *images()


@construct("a 5", {"0": "., .", "3": "a, .", "5": "., a"})
def local_response() -> Made:
    """Every channel is divided by its neighbours: the order of channels matters."""
    layers = nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(3), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.ReLU()
    return chain(*layers, nn.Conv2d(5, 3, 1)), *images()


@construct("c 6", {"0": "c, .", "1": "c", "2": "., c"})
def prelu() -> Made:
    """A slope for each channel."""
    return chain(nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 3, 1)), *images()


@construct("c 3, d 5", {"0": "c*4, .", "2": "d, c", "4": "., d"})
def pixel_shuffle() -> Made:
    """Of the channels ``(c, 2, 2)`` the last two become positions."""
    layers = (
        nn.Conv2d(3, 12, 3),
        nn.PixelShuffle(2),
        nn.Conv2d(3, 5, 3),
        nn.ReLU(),
        nn.Conv2d(5, 3, 1),
    )
    return chain(*layers), *images()


@construct("c 3, d 5", {"0": "c, .", "2": "d, c*4", "4": "., d"})
def pixel_unshuffle() -> Made:
    """Two positions each way become channels."""
    layers = (
        nn.Conv2d(3, 3, 3, padding=1),
        nn.PixelUnshuffle(2),
        nn.Conv2d(12, 5, 3),
        nn.ReLU(),
        nn.Conv2d(5, 3, 1),
    )
    return chain(*layers), *images()


@construct(
    "g 2, i 6 per g, p 2, q 3 per g p, o 3 per p",
    {"0": "g*i, .", "2": "g*p*q, i", "5": "p*o, q*g", "7": "., p*o"},
)
def channel_shuffle() -> Made:
    """ShuffleNet: the second convolution's groups are the slow part of the first one's channels."""
    return shuffled(2, 2), *images()


@construct(
    "g 2, i 6 per g, p 3, q 2 per g p, o 4 per p",
    {"0": "g*i, .", "2": "g*p*q, i", "5": "p*o, q*g", "7": "., p*o"},
)
def channel_shuffle_into_three() -> Made:
    """Two groups, then three: six channels of each group as three times two."""
    return shuffled(2, 3), *images()


@construct(
    "a 2, b 2, i 3 per a, j 3 per b, o 3, p 3",
    {
        "0": "a*i | b*j, .", "2.weight": "g:(a | b)*3, g?(i / j)", "2.bias": "(a | b)*3",
        "5.weight": "n:(o | p), n?(a | b | a / b | a | b)", "5.bias": "o | p", "7": "., o | p",
    },
)  # fmt: skip
def channel_shuffle_across() -> Made:
    """Channels ``(3, 4)`` against groups ``(2, 6)``, which cut the second row in the middle."""
    return shuffled(4, 2), *images()


@construct("s 4, a 3, b 5", {"stem": "s, .", "a": "a, s", "b": "b, s | a", "head": "., s | a | b"})
def dense() -> Made:
    """DenseNet: every layer reads all before it, one behind the other."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        x = torch.cat([x, m.a(x).relu()], 1)
        x = torch.cat([x, m.b(x).relu()], 1)
        return m.head(x.mean((2, 3)))

    net = Net(run, stem=nn.Conv2d(3, 4, 3), a=nn.Conv2d(4, 3, 3, 1, 1), b=nn.Conv2d(7, 5, 3, 1, 1),
              head=nn.Linear(12, 3))  # fmt: skip
    return net, *images()


@construct(
    "a 3, b 4, c 5, d 2",
    {"a": "a, .", "b": "1 | b, .", "c": "c, a | 1", "d": "d, b", "head": "., c | d"},
)
def branches_sliced() -> Made:
    """Inception: branches of 3 and 5 channels one behind the other, of which two layers read 4
    each."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = torch.cat([m.a(x), m.b(x)], 1).relu()
        x = torch.cat([m.c(x[:, :4]), m.d(x[:, 4:])], 1).relu()
        return m.head(x.mean((2, 3)))

    net = Net(run, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 5, 1), c=nn.Conv2d(4, 5, 1), d=nn.Conv2d(4, 2, 1),
              head=nn.Linear(7, 3))  # fmt: skip
    return net, *images()


@construct("c 6, r 2", {"stem": "c, .", "down": "r, c", "up": "c, r", "head": "., c"})
def squeeze_excite() -> Made:
    """A gate for each channel, from the mean over positions."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        x = x * m.up(m.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return m.head(x.mean((2, 3)))

    net = Net(
        run,
        stem=nn.Conv2d(3, 6, 3),
        down=nn.Conv2d(6, 2, 1),
        up=nn.Conv2d(2, 6, 1),
        head=nn.Linear(6, 3),
    )
    return net, *images()


@construct(
    "p 2, s 4, q 2, h 5",
    {
        "stem": "s, .",
        "one": "h, s",
        "two": "p | s | q, h",
        "three": "p | s | q, p | s | q",
        "head": "., p | s | q",
    },
)
def shortcut_padded() -> Made:
    """ResNet's option A: the shortcut skips positions and gets channels of zeros before and behind
    it."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        y = m.two(m.one(x).relu())
        x = (y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))).relu()
        x = (x + m.three(x)).relu()
        return m.head(x.mean((2, 3)))

    net = Net(run, stem=nn.Conv2d(3, 4, 1), one=nn.Conv2d(4, 5, 3, 2, 1), two=nn.Conv2d(5, 8, 3, 1, 1),
              three=nn.Conv2d(8, 8, 3, 1, 1), head=nn.Linear(8, 3))  # fmt: skip
    return net, *images()


@construct("c 6, h 5", {"0": "c, .", "4": "h, c*4", "6": "., h"})
def flattened() -> Made:
    """Channels and the four positions left, read by a linear layer."""
    layers = (
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.ReLU(),
    )
    return nn.Sequential(*layers, nn.Linear(5, 3)), *images()


@construct("c 4, d 5", {"0": "c, .", "3": "d, c", "5": "., d"})
def resized() -> Made:
    """Pooled and interpolated: channels stay themselves."""
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear")
    return chain(*layers, nn.Conv2d(4, 5, 3), nn.MaxPool2d(2), nn.Conv2d(5, 3, 1)), *images()
