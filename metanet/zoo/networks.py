"""The small networks that zoos are made of: plain modules of plain layers, each built by one
factory.

Factories are what the REFs of a zoo name (``metanet.zoo.networks:cnn``), so their keyword arguments
are plain JSON, and the files of strangers may name them. Modules hold nothing but parameters and
buffers, and have no branches on values: they can be traced, stacked and run under ``vmap`` as they
are.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..trust import open_to_files
from ._errors import ZooError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation_layer(name: str) -> nn.Module:
    """The activation called ``name``; raises ``ZooError`` with the choices."""
    if name not in ACTIVATIONS:
        raise ZooError(f"activation: {name!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


@open_to_files
def mlp(
    widths: Sequence[int] = (16,),
    *,
    activation: str = "relu",
    norm: bool = False,
    input_shape: Sequence[int] = (1, 8, 8),
    classes: int = 10,
) -> nn.Sequential:
    """Flatten, then one hidden layer per entry of ``widths``, then a linear read-out.

    Shapes: ``(batch, *input_shape) -> (batch, classes)``, logits.
    """
    size = 1
    for extent in input_shape:
        size *= extent
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers.append(nn.Linear(size, width))
        if norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(activation_layer(activation))
        size = width
    layers.append(nn.Linear(size, classes))
    return nn.Sequential(*layers)


@open_to_files
def cnn(
    channels: Sequence[int] = (8, 8, 8),
    *,
    strides: Sequence[int] | None = None,
    activation: str = "relu",
    norm: bool = False,
    kernel_size: int = 3,
    pool: str | None = None,
    readout: str = "average",
    input_shape: Sequence[int] = (1, 8, 8),
    classes: int = 10,
) -> nn.Sequential:
    """Convolutions (each with ``norm``: BatchNorm, then the activation), then a linear read-out.

    Args:
        channels: output channels of each convolution; padding keeps the image size at stride 1.
        strides: stride of each convolution; 1 everywhere when not given.
        pool: ``"max"`` or ``"average"``: 2x2 pooling after the first convolution.
        readout: ``"average"`` over all positions before the last linear layer, or ``"flatten"``.

    Shapes: ``(batch, *input_shape) -> (batch, classes)``, logits.
    """
    strides = [1] * len(channels) if strides is None else list(strides)
    if len(strides) != len(channels):
        raise ZooError(
            f"cnn: {len(strides)} strides {strides} for {len(channels)} convolutions "
            f"{list(channels)}: give one each"
        )
    layers: list[nn.Module] = []
    size, positions = input_shape[0], list(input_shape[1:])
    for depth, (width, stride) in enumerate(zip(channels, strides, strict=True)):
        layers.append(nn.Conv2d(size, width, kernel_size, stride=stride, padding=kernel_size // 2))
        positions = [(p + 2 * (kernel_size // 2) - kernel_size) // stride + 1 for p in positions]
        if norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(activation_layer(activation))
        if depth == 0 and pool is not None:
            layers.append(_pooling(pool))
            positions = [p // 2 for p in positions]
        size = width
    if readout == "average":
        layers.append(GlobalAverage())
    elif readout == "flatten":
        layers.append(nn.Flatten())
        size *= positions[0] * positions[1]
    else:
        raise ZooError(f"cnn: readout {readout!r} is not known; choose 'average' or 'flatten'")
    return nn.Sequential(*layers, nn.Linear(size, classes))


class GlobalAverage(nn.Module):
    """The mean over all positions: ``(batch, channels, h, w) -> (batch, channels)``.

    Not ``nn.AdaptiveAvgPool2d``, whose channels-last form falls back to a loop over networks under
    ``vmap``.
    """

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c"]:
        """Mean over both axes of the image."""
        return x.mean((-2, -1))


def _pooling(name: str) -> nn.Module:
    if name == "max":
        return nn.MaxPool2d(2)
    if name == "average":
        return nn.AvgPool2d(2)
    raise ZooError(f"cnn: pool {name!r} is not known; choose 'max', 'average' or leave it out")


class ResidualBlock(nn.Module):
    """``activation(branch(x) + shortcut(x))``, branch = two 3x3 convolutions (He et al. 2016).

    The shortcut is the identity, or a 1x1 convolution where the number of channels changes.
    """

    def __init__(self, channels_in: int, channels: int, activation: str, norm: bool):
        super().__init__()
        branch: list[nn.Module] = [nn.Conv2d(channels_in, channels, 3, padding=1)]
        if norm:
            branch.append(nn.BatchNorm2d(channels))
        branch += [activation_layer(activation), nn.Conv2d(channels, channels, 3, padding=1)]
        if norm:
            branch.append(nn.BatchNorm2d(channels))
        self.branch = nn.Sequential(*branch)
        self.shortcut = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )
        self.activation = activation_layer(activation)

    def forward(self, x: Float[Tensor, "batch c_in h w"]) -> Float[Tensor, "batch c h w"]:
        """The activation of branch plus shortcut."""
        return self.activation(self.branch(x) + self.shortcut(x))


@open_to_files
def resnet(
    channels: Sequence[int] = (8, 8),
    *,
    stride: int = 2,
    activation: str = "relu",
    norm: bool = False,
    input_shape: Sequence[int] = (1, 8, 8),
    classes: int = 10,
) -> nn.Sequential:
    """A stem convolution to ``channels[0]``, then one residual block per further entry, average
    pool, linear.

    Shapes: ``(batch, *input_shape) -> (batch, classes)``, logits.
    """
    layers: list[nn.Module] = [nn.Conv2d(input_shape[0], channels[0], 3, stride=stride, padding=1)]
    if norm:
        layers.append(nn.BatchNorm2d(channels[0]))
    layers.append(activation_layer(activation))
    layers += [ResidualBlock(a, b, activation, norm) for a, b in itertools.pairwise(channels)]
    return nn.Sequential(*layers, GlobalAverage(), nn.Linear(channels[-1], classes))


class Siren(nn.Module):
    """An image as a function of its coordinates: an MLP with sine activations (SIREN, Sitzmann et
    al. 2020).

    ``h_{l+1} = sin(w0 (W_l h_l + b_l))``, output ``W h + b + 0.5``. Key names and layout are those
    of the public INR data sets of DWSNets (Navon et al. 2023): ``seq.0.weight (32, 2)``,
    ``seq.0.bias``, ``seq.1.weight (32, 32)``, ...

    Shapes: coordinates in [-1, 1], ``(points, inputs) -> (points, outputs)``.
    """

    def __init__(self, sizes: Sequence[int], w0: float = 30.0):
        super().__init__()
        self.w0 = w0
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.seq = nn.ModuleList(layers)
        for depth, layer in enumerate(layers):
            # The scales of the paper (section 3.2): pre-activations are standard normal at every
            # depth. Biases are left as nn.Linear draws them, as in the authors' code.
            bound = 1 / layer.in_features if depth == 0 else (6 / layer.in_features) ** 0.5 / w0
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Float[Tensor, "points inputs"]) -> Float[Tensor, "points outputs"]:
        """``sin(w0 W x + w0 b)`` layer by layer; the last is linear, around 0.5."""
        for layer in self.seq[:-1]:
            x = torch.sin(self.w0 * layer(x))
        return self.seq[-1](x) + 0.5


@open_to_files
def siren(
    hidden: Sequence[int] = (32, 32), *, inputs: int = 2, outputs: int = 1, w0: float = 30.0
) -> Siren:
    """A :class:`Siren` with the hidden sizes given."""
    return Siren((inputs, *hidden, outputs), w0)
