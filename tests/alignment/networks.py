"""The networks that matchers are tested on: name -> example of a model and its inputs."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

import metanet
from metanet.verification import redraw
from metanet.verification._redraw import calibrated
from symmetry.constructs import CONSTRUCTS
from symmetry.truth import Example, convolutional, decoders, recurrent, text, vision
from symmetry.truth._sheet import library


def _vgg16() -> Example:
    """VGG16 with four to ten channels."""
    layers: list[nn.Module] = []
    width = 3
    for out in (4, 4, 0, 5, 5, 0, 6, 6, 6, 0, 8, 8, 8, 0, 8, 8, 8):
        if out == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
        width = out
    layers += [
        nn.Flatten(),
        nn.Linear(width * 4, 10),
        nn.ReLU(),
        nn.Linear(10, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    ]
    return Example(
        nn.Sequential(*layers), (torch.randn(2, 3, 32, 32),), (torch.randn(3, 3, 32, 32),)
    )


class ResNet18(nn.Module):
    """ResNet18 with few channels."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        pairs = zip((widths[0], *widths), widths, strict=False)
        block = convolutional.Block
        self.stages = nn.Sequential(*(nn.Sequential(block(a, b), block(b, b)) for a, b in pairs))
        self.fc = nn.Linear(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stages(self.stem(x)).mean((2, 3)))


def _resnet18() -> Example:
    return Example(
        ResNet18((5, 6, 7, 8)), (torch.randn(2, 3, 16, 16),), (torch.randn(3, 3, 24, 24),)
    )


def _shuffle_net() -> Example:
    """ShuffleNetV2 of torchvision with two or three units a stage and few channels."""
    library("timm")  # torchvision by the same way
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    model = ShuffleNetV2([2, 3, 2], [8, 16, 24, 32, 32], num_classes=3)
    return Example(model, (torch.randn(2, 3, 64, 64),), (torch.randn(3, 3, 96, 96),))


def _unet() -> Example:
    return Example(*CONSTRUCTS["unet"].make())


NETWORKS: dict[str, Callable[[], Example]] = {
    "mlp": convolutional.TRUTHS["mlp"].make,
    "vgg16": _vgg16,
    "resnet18": _resnet18,
    "vit": vision.TRUTHS["vit_transformers"].make,
    "gpt2": text.TRUTHS["gpt2"].make,
    "llama": decoders.TRUTHS["llama"].make,
    "lstm": recurrent.TRUTHS["lstm"].make,
}
MORE: dict[str, Callable[[], Example]] = {
    name: truth.make
    for truths in (vision.TRUTHS, text.TRUTHS, decoders.TRUTHS, recurrent.TRUTHS)
    for name, truth in truths.items()
    if name
    not in (
        "vit_tiny",
        "vit_transformers",
        "gpt2",
        "llama",
        "lstm",
    )  # too large, or among those above
}
CUT: dict[str, Callable[[], Example]] = {
    "shuffle_net": _shuffle_net,
    "unet": _unet,
}  # axes cut in several ways


@cache
def traced(name: str) -> tuple[metanet.Architecture, Example]:
    """Architecture and example of one of the networks above."""
    torch.manual_seed(0)
    example = (NETWORKS | MORE | CUT)[name]()
    check = (example.check_args, dict(example.check_kwargs))
    return metanet.trace(
        example.model, *example.args, check_inputs=check, **example.kwargs
    ), example


@cache
def _initial(name: str) -> dict[str, Tensor]:
    """As the library made it: what is drawn anew stays near these values in some tensors."""
    return {n: t.detach().clone() for n, t in traced(name)[1].model.state_dict().items()}


def random_state(name: str, seed: int) -> dict[str, Tensor]:
    """A state dict with every parameter and statistic drawn anew, at which the network works."""
    example = traced(name)[1]
    generator = torch.Generator().manual_seed(seed)
    example.model.load_state_dict(redraw(_initial(name), generator, model=example.model))
    with torch.no_grad(), calibrated(example.model.eval(), generator):
        example.model(*example.args, **example.kwargs)
    return {n: t.detach().clone() for n, t in example.model.state_dict().items()}


def floating(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries that a relabelling may move."""
    return {n: t for n, t in state.items() if t.is_floating_point()}


def batches(name: str, *sizes: int, seed: int = 0) -> list:
    """Random data of a network's kind, in batches of these sizes."""
    example = traced(name)[1]
    generator = torch.Generator().manual_seed(seed)

    def like(x: object, size: int) -> object:
        if not isinstance(x, Tensor):
            return x
        if x.is_floating_point():
            return torch.randn(size, *x.shape[1:], generator=generator)
        return torch.randint(0, int(x.max()) + 1, (size, *x.shape[1:]), generator=generator)

    out: list = []
    for size in sizes:
        if example.kwargs:
            out.append({k: like(x, size) for k, x in example.kwargs.items()})
        else:
            out.append((tuple(like(x, size) for x in example.args), None))
    return out
