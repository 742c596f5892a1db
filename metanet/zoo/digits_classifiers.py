"""A zoo of small classifiers of the 8x8 digits that scikit-learn ships."""

import hashlib
import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import networks
from ._blueprint import Blueprint
from ._errors import ZooError
from ._finite import check_choice, settle_weights
from ._making import Chunk, Tick, load_or_make, make_chunks
from ._population import Zoo
from ._registry import register
from ._store import Shard
from ._vmap_training import Plan, bytes_per_network, train_networks

log = logging.getLogger(__name__)
IMAGE = (1, 8, 8)
CLASSES = 10
BATCH_SIZE = 60
TRAINING_IMAGES = 1200
MEMORY = 512 * 2**20  # bytes that the networks of one chunk may take while they are trained

# name -> (factory of metanet.zoo.networks, its arguments). Slowest first: chunks are made in this
# order, two or more side by side, and long ones at the end would leave processors idle.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet_bn_relu": ("resnet", {"channels": [6, 6, 6], "activation": "relu", "norm": True}),
    "cnn4_bn_relu": (
        "cnn",
        {"channels": [6, 6, 8, 8], "strides": [2, 1, 1, 1], "activation": "relu", "norm": True},
    ),
    "cnn4_gelu": ("cnn", {"channels": [6, 8, 8, 6], "strides": [2, 1, 1, 1], "activation": "gelu"}),
    "resnet_gelu": ("resnet", {"channels": [8, 8], "activation": "gelu"}),
    "cnn3_relu": ("cnn", {"channels": [8, 8, 10], "strides": [2, 1, 1], "activation": "relu"}),
    "cnn2_silu": ("cnn", {"channels": [8, 16], "strides": [2, 1], "activation": "silu"}),
    "cnn3_tanh_flatten": (
        "cnn",
        {"channels": [6, 8, 8], "strides": [2, 1, 2], "activation": "tanh", "readout": "flatten"},
    ),
    "mlp3_relu": ("mlp", {"widths": [14, 12], "activation": "relu"}),
    "mlp2_tanh": ("mlp", {"widths": [16], "activation": "tanh"}),
}

UNSEEN = ("cnn4_gelu",)  # its depth and its activation occur in others, never together

_seeding = threading.Lock()


@register("digits_classifiers")
@dataclass(frozen=True)
class DigitsClassifiers:
    """Classifiers whose accuracies spread over the whole range.

    Nearly everything about them is drawn.

    Every network has its own seed, from which its hyper-parameters (uniform, or log-uniform where
    marked) and all else follow: initialisation, training subset, wrong labels, order of the
    mini-batches.

    Args:
        networks: in all, shared evenly among the architectures.
        epochs: the longest training; each network's is uniform from 1 to this.
        seed: of the zoo.
        root: folder to keep zoos in; default ``$METANET_DATA``, else ``data``.
        architectures: names in ``ARCHITECTURES``; all when not given.
        learning_rate: of Adam, log-uniform.
        init_scale: factor on all weight matrices and kernels of torch's default initialisation,
            log-uniform.
        weight_decay: L2, as in ``torch.optim.Adam``, log-uniform.
        train_fraction: of the 1,200 training images, log-uniform.
        label_noise: half of the networks have none, of the others a uniform share of labels is
            replaced by a wrong one.
        chunk: networks trained together (and stored in one shard) at most.
        nan: what becomes of networks that are not finite: ``drop``, ``keep`` or ``error``.

    The default ranges keep training finite (no number in the zoo is above 31); with others, a
    network that diverges is left out.
    """

    networks: int = 2000
    epochs: int = 20
    seed: int = 0
    root: str | None = None
    architectures: Sequence[str] | None = None
    learning_rate: Sequence[float] = (1e-3, 3e-2)
    init_scale: Sequence[float] = (1.0, 3.0)
    weight_decay: Sequence[float] = (1e-6, 1e-2)
    train_fraction: Sequence[float] = (0.05, 1.0)
    label_noise: Sequence[float] = (0.0, 0.6)
    chunk: int = 64
    nan: str = "drop"

    name = "digits_classifiers"
    unit = "network-epochs"

    def __post_init__(self) -> None:
        unknown = [name for name in self._names if name not in ARCHITECTURES]
        if unknown:
            raise ZooError(
                f"zoo.architectures: {', '.join(unknown)} not known; choose among {', '.join(ARCHITECTURES)}"
            )
        check_choice(self.nan)
        for field in ("networks", "epochs", "chunk"):
            if getattr(self, field) < 1:
                raise ZooError(f"zoo.{field} is {getattr(self, field)}; it must be at least 1")
        if self.networks < len(self._names):
            raise ZooError(
                f"zoo.networks is {self.networks} for {len(self._names)} architectures: give one each"
            )
        for field, low, high in (
            ("learning_rate", 0, math.inf),
            ("init_scale", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("train_fraction", 0, 1),
            ("label_noise", -1e-300, 1),
        ):
            a, b = getattr(self, field)
            if not low < a <= b <= high:
                raise ZooError(
                    f"zoo.{field} is [{a}, {b}]; give [smallest, largest] above {max(low, 0)} and "
                    f"up to {high}"
                )

    def load(self, progress: bool = True) -> Zoo:
        """The zoo, made first where it is missing or damaged: about three minutes on two cores."""
        zoo = settle_weights(load_or_make(self, self.root, progress), self.nan)
        return replace(zoo, unseen=tuple(name for name in UNSEEN if name in zoo.populations))

    # What the rest of this room asks of a maker:

    def recipe(self) -> dict[str, Any]:
        """What decides about every number of the zoo, plain JSON."""
        return {
            "zoo": self.name,
            "version": 1,  # count up when code below changes what comes out
            "networks": self.networks,
            "epochs": self.epochs,
            "seed": self.seed,
            "architectures": {name: list(ARCHITECTURES[name]) for name in self._names},
            "batch_size": BATCH_SIZE,
            "chunk": self.chunk,
            **{
                field: [float(value) for value in getattr(self, field)]
                for field in (
                    "learning_rate",
                    "init_scale",
                    "weight_decay",
                    "train_fraction",
                    "label_noise",
                )
            },
        }

    def described(self) -> dict[str, Blueprint]:
        """How the networks of every architecture are built."""
        return {
            name: Blueprint(
                ref=f"metanet.zoo.networks:{ARCHITECTURES[name][0]}",
                arch_args=ARCHITECTURES[name][1],
                input_shape=IMAGE,
            )
            for name in self._names
        }

    def chunks(self) -> list[Chunk]:
        """As many networks in each as ``chunk`` says and the memory allows."""
        chunks = []
        for order, name in enumerate(self._names):
            share = self.networks // len(self._names) + (order < self.networks % len(self._names))
            module = _build(name)
            fits = MEMORY // bytes_per_network(module, torch.zeros(BATCH_SIZE, *IMAGE))
            epochs = [int(self._draw(name, index)["epochs"]) for index in range(share)]
            chunks += make_chunks(name, max(1, min(self.chunk, fits)), epochs)
        return chunks

    def make(self, chunk: Chunk, tick: Tick) -> Shard:
        """Train the networks of a chunk side by side.

        Raises:
            ZooError: all of them diverged.
        """
        images, labels = _digits()
        train, test = images[:TRAINING_IMAGES], images[TRAINING_IMAGES:]
        drawn = [self._draw(chunk.architecture, index) for index in range(chunk.start, chunk.stop)]
        generators = [torch.Generator().manual_seed(hyper["seed"]) for hyper in drawn]
        sets = [
            _training_set(labels[:TRAINING_IMAGES], *each)
            for each in zip(drawn, generators, strict=True)
        ]
        plan = Plan(
            learning_rate=torch.tensor(
                [hyper["learning_rate"] for hyper in drawn], dtype=torch.float64
            ),
            weight_decay=torch.tensor(
                [hyper["weight_decay"] for hyper in drawn], dtype=torch.float64
            ),
            epochs=torch.tensor([hyper["epochs"] for hyper in drawn]),
            labels=torch.stack([seen for _, seen in sets]),
            subsets=[subset for subset, _ in sets],
            generators=generators,
            batch_size=BATCH_SIZE,
        )
        modules = [_initialised(chunk.architecture, hyper) for hyper in drawn]
        trained = train_networks(modules, plan, train, test, labels[TRAINING_IMAGES:], tick)
        return _shard(chunk, drawn, trained)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(ARCHITECTURES if self.architectures is None else self.architectures)

    def _draw(self, architecture: str, index: int) -> dict[str, Any]:
        """Seed and hyper-parameters of one network; independent of how many there are and how they
        are chunked."""
        digest = hashlib.sha256(f"{self.name}/{self.seed}/{architecture}/{index}".encode()).digest()
        seed = int.from_bytes(digest[:6], "little")
        random = np.random.default_rng(seed)

        def log_uniform(bounds: Sequence[float]) -> float:
            low, high = (float(bound) for bound in np.log(bounds))
            return float(np.exp(random.uniform(low, high)))

        lowest, highest = self.label_noise
        return {
            "seed": seed,
            "learning_rate": log_uniform(self.learning_rate),
            "init_scale": log_uniform(self.init_scale),
            "weight_decay": log_uniform(self.weight_decay),
            "train_fraction": log_uniform(self.train_fraction),
            "label_noise": float(random.uniform(lowest, highest) * random.integers(2)),
            "epochs": int(random.integers(1, self.epochs + 1)),
        }


def _digits() -> tuple[Tensor, Tensor]:
    """1,797 images in [0, 1] and labels, in a fixed random order (the file has runs of one
    writer)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.tensor(data.images[order] / 16, dtype=torch.float32)[:, None]
    return images, torch.tensor(data.target[order], dtype=torch.int64)


def _training_set(
    labels: Tensor, hyper: dict[str, Any], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Which images a network is trained on, and the labels it is shown."""
    size = max(1, round(hyper["train_fraction"] * len(labels)))
    subset = torch.randperm(len(labels), generator=generator)[:size]
    wrong = torch.rand(len(labels), generator=generator) < hyper["label_noise"]
    other = (labels + torch.randint(1, CLASSES, labels.shape, generator=generator)) % CLASSES
    return subset, torch.where(wrong, other, labels)


def _build(architecture: str, seed: int = 0) -> nn.Module:
    """A network with torch's default initialisation, drawn from ``seed``."""
    factory, arguments = ARCHITECTURES[architecture]
    # torch has one generator for all threads: whoever draws from it beside us would change what we
    # get
    with _seeding, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(networks, factory)(**arguments)


def _initialised(architecture: str, hyper: dict[str, Any]) -> nn.Module:
    module = _build(architecture, hyper["seed"])
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(hyper["init_scale"])
    return module


def _shard(chunk: Chunk, drawn: list[dict[str, Any]], trained: Any) -> Shard:
    module = _build(chunk.architecture)
    constants = {
        "activation": ARCHITECTURES[chunk.architecture][1]["activation"],
        "depth": sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules()),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
    finite = (
        torch.stack([t.reshape(len(t), -1).isfinite().all(1) for t in trained.state.values()])
        .all(0)
        .tolist()
    )
    keep = [index for index, good in enumerate(finite) if good]
    if len(keep) < len(drawn):
        log.warning("%s: %d networks diverged and are left out", chunk.file, len(drawn) - len(keep))
    if not keep:
        raise ZooError(
            f"all networks of {chunk.file} diverged; lower zoo.learning_rate or zoo.init_scale "
            "(largest values)"
        )
    rows, curves = [], []
    for position, index in enumerate(keep):
        epochs = drawn[index]["epochs"]
        curve = {
            "train_loss": trained.train_loss[index, :epochs].tolist(),
            "test_accuracy": trained.test_accuracy[index, :epochs].tolist(),
        }
        identity = f"{chunk.architecture}-{chunk.start + index:05d}"
        rows.append(
            {"id": identity, "run": identity, "architecture": chunk.architecture}
            | {"shard": chunk.file, "index": position}
            | drawn[index]
            | {
                "train_loss": curve["train_loss"][-1],
                "train_accuracy": float(trained.train_accuracy[index]),
            }
            | {"test_accuracy": curve["test_accuracy"][-1]}
            | constants
        )
        curves.append(curve)
    chosen = torch.tensor(keep)
    return Shard(
        state={name: tensor[chosen] for name, tensor in trained.state.items()},
        rows=rows,
        curves=curves,
    )
