"""Classify the image that an implicit neural representation (a SIREN) holds, from its weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..documents import Document
from ..errors import MetanetError
from ..zoo import Zoo
from ._data import WeightData
from ._task import Task, register

CANONICAL = ("none", "sign", "phase")


class _Scale(Document):
    classes: Annotated[list[str], Field(min_length=1)]
    canonical: Literal["none", "sign", "phase"]
    w0: Annotated[float, Field(gt=0)]


@register("inr_classification")
@dataclass(kw_only=True)
class InrClassification(Task):
    """Cross-entropy on a column of classes.

    Args:
        canonical: ``"sign"`` chooses every hidden neuron's sign by its weights, as ``sin(-x) =
            -sin(x)`` lets it; ``"phase"`` also folds biases into half a period, using ``sin(x + pi)
            = -sin(x)``. Needs DWSNets' layout (``seq.0.weight``, ...).
        w0: frequency of the sine, for ``"phase"``.
        fits: train on this many of the fits of each image; all when left out. One fit of an image
            is evaluated.
        label_smoothing: of the cross-entropy.
    """

    Scale = _Scale

    label: str = "label"
    canonical: str = "sign"
    w0: float = 30.0
    fits: int | None = None
    label_smoothing: float = 0.0
    classes: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.monitor = "accuracy"
        if self.canonical not in CANONICAL:
            raise MetanetError(f"task.canonical={self.canonical!r}: choose {', '.join(CANONICAL)}")

    def fit_labels(self, zoo: Zoo) -> None:
        """Takes the classes, in the order of their names."""
        self.classes = [str(value) for value in np.unique(self.column(zoo))]
        self.out_dim = len(self.classes)

    def targets(self, zoo: Zoo) -> Tensor:
        """Numbers of the classes, ``(rows,)``.

        Raises:
            MetanetError: a label that is none of the classes.
        """
        number = {name: index for index, name in enumerate(self.classes)}
        values = [str(value) for value in self.column(zoo)]
        unknown = [value for value in values if value not in number]
        if unknown:
            raise MetanetError(
                f"label={self.label}: the class {unknown[0][:60]!r} is none of those that the task "
                f"has learned to tell apart: {', '.join(self.classes)[:200]}"
            )
        return torch.tensor([number[value] for value in values])

    def eval_rows(self, zoo: Zoo) -> Tensor | None:
        """The first fit of every image, where the zoo has several."""
        fit = zoo.table.get("fit")
        return None if fit is None else torch.from_numpy(np.asarray(fit).astype(int) == 0)

    def data(self, zoo: Zoo, seed: int, examples: int = 2) -> WeightData:
        """As :meth:`Task.data`, with the first ``fits`` fits of every training image only."""
        data = super().data(zoo, seed, examples)
        if self.fits is not None and "fit" in zoo.table:
            fit = torch.from_numpy(np.asarray(zoo.table["fit"]).astype(int))
            train = data.splits["train"]
            data.splits = {**data.splits, "train": train[fit[train] < self.fits]}
        return data

    def prepare_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The canonical form of the networks, if one was asked for.

        Raises:
            MetanetError: the networks are no SIRENs of the layout expected.
        """
        return (
            state
            if self.canonical == "none"
            else canonical_siren(state, self.w0, phase=self.canonical == "phase")
        )

    def restore(self, scale: Mapping[str, Any]) -> None:
        """As :meth:`Task.restore`; the classes tell ``out_dim``."""
        super().restore(scale)
        self.out_dim = len(self.classes)

    def scale(self) -> dict[str, Any]:
        """Classes, canonical form and frequency."""
        return {"classes": self.classes, "canonical": self.canonical, "w0": self.w0}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy; labels are smoothed in training only."""
        return F.cross_entropy(
            output, target, label_smoothing=self.label_smoothing if output.requires_grad else 0.0
        )

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities ``(networks, classes)``."""
        return output.softmax(-1)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Accuracy, and the mean negative logarithm of the true class's probability."""
        nll = -prediction.gather(1, target[:, None]).clamp_min(1e-30).log().mean()
        return {
            "accuracy": float((prediction.argmax(-1) == target).float().mean()),
            "nll": float(nll),
        }

    def plots(self, data: WeightData, predictions: Mapping[str, Tensor]) -> dict[str, Figure]:
        """The confusion matrix of the test split, and some images where the zoo has them."""
        prediction, target = predictions["test"].argmax(-1), data.target[data.splits["test"]]
        counts = torch.zeros(self.out_dim, self.out_dim, dtype=torch.long)
        counts.index_put_((target, prediction), torch.tensor(1), accumulate=True)
        figure = Figure(figsize=(5, 4.6), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(counts.numpy(), cmap="viridis")
        axes.set(
            xlabel="predicted",
            ylabel="true",
            xticks=range(self.out_dim),
            yticks=range(self.out_dim),
        )
        axes.set_xticklabels(self.classes)
        axes.set_yticklabels(self.classes)
        colours = np.asarray(image.cmap(image.norm(counts.double().numpy())))
        for i in range(self.out_dim):
            for j in range(self.out_dim):
                ink = readable_on(colours[i, j].tolist())
                axes.text(
                    j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=7, color=ink
                )
        return {"confusion": figure, **self._reconstructions(data)}

    def _reconstructions(self, data: WeightData) -> dict[str, Figure]:
        """Images as the networks hold them beside the originals, if the zoo knows them."""
        pictures = getattr(data.zoo, "pictures", None)
        if pictures is None:
            return {}
        test = data.splits["test"]
        rows = test[
            torch.linspace(0, len(test) - 1, min(12, len(test))).long()
        ]  # zoos are often sorted by class
        originals, rendered = pictures(rows)
        psnr = np.asarray(data.zoo.table["psnr"]).astype(float)[rows.numpy()]
        figure = Figure(figsize=(12, 2.6), layout="constrained")
        for i, axes in enumerate(figure.subplots(2, len(rows)).T):
            for ax, picture in zip(axes, (originals[i], rendered[i]), strict=True):
                ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
                ax.axis("off")
            axes[1].set_title(f"{psnr[i]:.1f} dB", fontsize=7)
        mean = np.asarray(data.zoo.table["psnr"]).astype(float).mean()
        figure.suptitle(f"original above, network below; mean PSNR of the zoo {mean:.1f} dB")
        return {"reconstructions": figure}

    def describe(self, prediction: Tensor) -> str:
        """The likeliest class with its probability."""
        best = int(prediction.argmax())
        return f"{self.label}: {self.classes[best]} (probability {float(prediction[best]):.3f})"


def readable_on(colour: Sequence[float]) -> str:
    """Black or white, whichever stands out from a background ``(red, green, blue, ...)``, each 0 to
    1.

    By the relative luminance of WCAG 2 (https://www.w3.org/TR/WCAG20/#relativeluminancedef); at
    0.179 both contrast alike.
    """
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def canonical_siren(
    state: Mapping[str, Tensor], w0: float, phase: bool = False
) -> dict[str, Tensor]:
    """One representative of the sign (and phase) symmetries of every hidden neuron of stacked
    SIRENs.

    ``sin(w0 (-w x - b)) = -sin(w0 (w x + b))``: a neuron's incoming weights and bias change sign
    together with its outgoing weights. ``sin(w0 (w x + b + pi / w0)) = -sin(w0 (w x + b))``: its
    bias moves by half a period together with a change of sign of its outgoing weights. The
    functions stay the same.

    Args:
        state: ``seq.0.weight [batch, hidden, in]``, ``seq.0.bias [batch, hidden]``, ...

    Raises:
        MetanetError: the networks do not have DWSNets' layout.
    """
    out = dict(state)
    layers = sum(f"seq.{i}.weight" in state for i in range(len(state)))
    if not layers or len(state) != 2 * layers:
        raise MetanetError(
            "task.canonical needs the layout seq.0.weight, seq.0.bias, ...; got "
            f"{', '.join(state)}. Set it to none."
        )
    for i in range(layers - 1) if phase else ():
        half = math.pi / w0
        turns = (out[f"seq.{i}.bias"] / half).round()
        out[f"seq.{i}.bias"] = out[f"seq.{i}.bias"] - turns * half
        out[f"seq.{i + 1}.weight"] = (
            out[f"seq.{i + 1}.weight"] * (1 - 2 * turns.remainder(2))[..., None, :]
        )
    for i in reversed(
        range(layers - 1)
    ):  # backwards: what leaves a neuron is settled before the neuron is
        weight, bias, after = (
            out[f"seq.{i}.weight"],
            out[f"seq.{i}.bias"],
            out[f"seq.{i + 1}.weight"],
        )
        sign = torch.where(_direction(i, weight, after) < 0, -1.0, 1.0).to(bias)
        out[f"seq.{i}.weight"], out[f"seq.{i}.bias"] = weight * sign[..., None], bias * sign
        out[f"seq.{i + 1}.weight"] = after * sign[..., None, :]
    return out


def _direction(layer: int, weight: Tensor, after: Tensor) -> Tensor:
    """A number per neuron whose sign changes with the neuron's: relabelling other neurons must not
    change it.

    The first layer's inputs keep their identity, so the first of them can tell; later ones go by
    the sum of what leaves the neuron. Biases tell nothing where they were initialised to zero.
    """
    return weight[..., 0] if layer == 0 else after.sum(-2)
