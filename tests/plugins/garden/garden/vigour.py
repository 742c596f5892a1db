"""A task: how vigorous a network is, a number in its zoo's table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metanet.documents import Document
from metanet.tasks import Task, register
from metanet.zoo import Zoo


class Scale(Document):
    """What a saved model keeps of the task."""

    mean: float


@register("vigour")
@dataclass(kw_only=True)
class Vigour(Task):
    """Regression on one column of the zoo's table, centred.

    Args:
        squared: the loss is the mean squared error; else the mean absolute one.
    """

    Scale = Scale

    label: str = "vigour"
    squared: bool = True
    mean: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.monitor = "closeness"

    def targets(self, zoo: Zoo) -> Tensor:
        return torch.from_numpy(self.column(zoo).astype(np.float32))

    def fit_scale(self, target: Tensor) -> None:
        self.mean = float(target.mean())

    def scale(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        measure = F.mse_loss if self.squared else F.l1_loss
        return measure(output[:, 0] + self.mean, target)

    def predict(self, output: Tensor) -> Tensor:
        return output[:, 0] + self.mean

    def metrics(self, prediction: Tensor, target: Tensor) -> Mapping[str, float]:
        return {"closeness": -float((prediction - target).abs().mean())}

    def describe(self, prediction: Tensor) -> str:
        return f"{self.label}: {float(prediction):.3f}"
