"""Averages by how much each network depends on each parameter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._average import average
from .._part import Part, Problem
from .._registry import PerModel, method
from ..statistics import fishers, mean_of


@dataclass(frozen=True)
class _Fishers:
    """Of every model by name, and the mean over all its parameters."""

    values: list[dict[str, Tensor]]
    means: list[float]


def prepare(problem: Problem, *, samples: int | None = None, labels: str = "auto") -> _Fishers:
    """The Fisher information of every model: one float32 for each of its parameters stays in
    memory.

    Args:
        samples: at most so many of the data for each model; all if left out.
        labels: auto, expected (over the model's own distribution), sampled (from it), empirical
            (the loss at the data's targets).
    """
    networks = [(k, f"model {k}") for k in range(len(problem.models))]
    values = fishers(problem, networks, samples=samples, labels=labels)
    return _Fishers(values, [mean_of(diagonal) for diagonal in values])


@method(
    "fisher", reference="https://arxiv.org/abs/2111.09832", needs=("model", "data"), prepare=prepare
)
def fisher(
    part: Part, *, weights: PerModel = 1.0, floor: float = 1e-6, normalize: bool = False
) -> Tensor:
    r"""The average weighted by diagonal Fisher information (Matena & Raffel 2022).

    .. math::
        w = \frac{\sum_k \lambda_k F_k w_k}{\sum_k \lambda_k F_k}

    Buffers, and parameters that no model's answers depend on, are averaged by the weights alone.

    Args:
        weights: how much of each model.
        floor: the smallest Fisher information that counts, as a share of the model's mean.
        normalize: divide each model's by its mean, so that none counts more for being less sure.
    """
    plain = average(part.tensors, weights, "fisher")
    prepared: _Fishers = part.prepared
    if part.name not in prepared.values[0]:
        return plain
    raw = [v[part.name].to(plain) for v in prepared.values]
    precisions = [
        weight * f.clamp(min=floor * mean) / (mean if normalize else 1.0)
        for f, mean, weight in zip(raw, prepared.means, weights, strict=True)
    ]
    first, total = part.tensors[0], sum(precisions)
    # By differences to the first, so that the average of equal tensors is that tensor, bit for bit.
    moved = sum(p * (t - first) for p, t in zip(precisions[1:], part.tensors[1:], strict=True))
    weighed = (sum(raw) > 0) & (total != 0)
    return torch.where(weighed, first + moved / torch.where(weighed, total, 1.0), plain)
