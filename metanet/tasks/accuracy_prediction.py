"""Predict a number a network's training left behind (its test accuracy) from its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
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


class _Scale(Document):
    mean: float
    std: Annotated[float, Field(gt=0)]
    loss_kind: Literal["huber", "mse", "bce"]


@register("accuracy_prediction")
@dataclass(kw_only=True)
class AccuracyPrediction(Task):
    """Regression on one column of the zoo's table.

    Kendall's tau (the measure of Unterthiner et al. 2020), R2 and mean absolute error.

    Args:
        loss_kind: ``"huber"`` or ``"mse"`` on standardised targets, or ``"bce"`` for targets in [0,
            1].
    """

    Scale = _Scale

    label: str = "test_accuracy"
    loss_kind: str = "huber"
    mean: float = field(default=0.0, init=False)
    std: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        self.monitor = "tau"
        if self.loss_kind not in ("huber", "mse", "bce"):
            raise MetanetError(f"task.loss_kind={self.loss_kind!r}: choose huber, mse or bce")

    def targets(self, zoo: Zoo) -> Tensor:
        """The label as float32, ``(rows,)``.

        Raises:
            MetanetError: it is no number, or there is no such column.
        """
        try:
            return torch.from_numpy(self.column(zoo).astype(np.float32))
        except ValueError as e:
            raise MetanetError(
                f"label={self.label} is not numeric ({e}): regression needs numbers"
            ) from None

    def fit_scale(self, target: Tensor) -> None:
        """Takes mean and spread; ``bce`` has a scale already.

        Raises:
            MetanetError: ``bce``, and a target outside of [0, 1].
        """
        if self.loss_kind == "bce":
            if target.min() < 0 or target.max() > 1:
                raise MetanetError(
                    f"task.loss_kind=bce needs {self.label} in [0, 1]; it has {target.min():.3g} "
                    f"to {target.max():.3g}"
                )
            return
        self.mean, self.std = float(target.mean()), float(target.std().clamp_min(1e-8))

    def scale(self) -> dict[str, Any]:
        """Mean, spread and kind of the loss."""
        return {"mean": self.mean, "std": self.std, "loss_kind": self.loss_kind}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss, in units of the spread (``bce``: of the target itself)."""
        if self.loss_kind == "bce":
            return F.binary_cross_entropy_with_logits(output[:, 0], target)
        measure = F.mse_loss if self.loss_kind == "mse" else partial(F.huber_loss, delta=0.5)
        return measure(output[:, 0], self.encode(target))

    def encode(self, target: Tensor) -> Tensor:
        """Standardised targets; logits for ``bce``."""
        if self.loss_kind == "bce":
            return target.clamp(1e-3, 1 - 1e-3).logit()
        return (target - self.mean) / self.std

    def predict(self, output: Tensor) -> Tensor:
        """``(networks,)`` in the unit of the label."""
        return (
            output[:, 0].sigmoid()
            if self.loss_kind == "bce"
            else output[:, 0] * self.std + self.mean
        )

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Kendall's tau-b (ties count half), R2 (NaN for equal targets), mean absolute error."""
        from scipy.stats import kendalltau  # takes most of a second to import

        p, t = prediction.double().cpu(), target.double().cpu()
        spread = (t - t.mean()).square().sum()
        r2 = float(1 - (p - t).square().sum() / spread) if spread > 0 else float("nan")
        tau = float(kendalltau(p.numpy(), t.numpy()).statistic)
        return {"tau": tau, "r2": r2, "mae": float((p - t).abs().mean())}

    def plots(self, data: WeightData, predictions: Mapping[str, Tensor]) -> dict[str, Figure]:
        """True against predicted labels, a panel per split, a colour per architecture."""
        figure = Figure(figsize=(5 * len(predictions), 4.6), layout="constrained")
        names = np.asarray(data.zoo.table["architecture"]).astype(str)
        for axes, (split, prediction) in zip(
            figure.subplots(1, len(predictions), squeeze=False)[0], predictions.items(), strict=True
        ):
            rows = data.splits[split]
            target = data.target[rows]
            for name in data.members:
                mine = torch.from_numpy(names[rows.numpy()] == name)
                if mine.any():
                    axes.scatter(target[mine], prediction[mine], s=8, alpha=0.6, label=name)
            low, high = float(target.min()), float(target.max())
            axes.plot([low, high], [low, high], color="black", lw=0.8, zorder=0)
            m = self.metrics(prediction, target)
            axes.set(
                xlabel=f"true {self.label}",
                ylabel="predicted",
                title=f"{split}: tau {m['tau']:.3f}, R2 {m['r2']:.3f}",
            )
            axes.legend(fontsize=6)
        return {"scatter": figure}

    def describe(self, prediction: Tensor) -> str:
        """``accuracy: 0.9312``."""
        return f"{self.label}: {float(prediction):.4f}"
