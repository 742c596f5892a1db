"""Averages of linear maps by what they do to their inputs."""

import torch
from torch import Tensor

from ...errors import MetanetError
from ...evaluation import Runner, load, working_copy
from ...progress import track
from .._average import average
from .._data import data_of, first_samples
from .._part import Part, Problem
from .._registry import PerModel, method
from ..statistics import Block, apart, grams


def prepare(
    problem: Problem, *, samples: int | None = None
) -> dict[str, dict[Block, list[Tensor | None]]]:
    """The inputs' Gram matrices of every model, in memory in float64: as many values per matrix as
    it has inputs, squared (a transformer's take about as much as the model itself in float64).

    Args:
        samples: at most so many of the data for each model; all if left out.
    """
    network = working_copy(problem.network, problem.device)
    run = Runner(problem.device)
    count = len(problem.models)
    every: dict[str, dict[Block, list[Tensor | None]]] = {}
    other: set[str] = set()
    for number in range(count):
        load(network, problem.models[number])
        batches = first_samples(data_of(problem, number), samples)
        bar = track(batches, f"inputs of model {number}", unit="batches", show=problem.progress)
        of_model, elsewhere = grams(network, bar, run)
        other |= elsewhere
        for name, blocks in of_model.items():
            known = every.setdefault(name, {})
            for block, gram in blocks.items():
                known.setdefault(block, [None] * count)[number] = gram
    linear = {name: blocks for name, blocks in every.items() if name not in other and apart(blocks)}
    if not linear:
        raise MetanetError(
            "method 'regmean' finds no linear map in the network: nothing multiplies inputs by a "
            "matrix that is a parameter and is used in no other way"
        )
    problem.report["tensors merged by regression"] = len(linear)
    return linear


@method(
    "regmean",
    reference="https://arxiv.org/abs/2212.09849",
    needs=("model", "data"),
    prepare=prepare,
)
def regmean(part: Part, *, weights: PerModel = 1.0, alpha: float = 0.9) -> Tensor:
    r"""The linear maps that come closest to all models' on their own inputs (Jin et al. 2023).

    .. math::
        W = \Big( \sum_k \lambda_k \hat G_k \Big)^{-1} \sum_k \lambda_k \hat G_k W_k, \qquad G_k =
        X_k^\top X_k

    in float64, with the matrices' off-diagonals scaled down in :math:`\hat G`. Convolutions are
    linear maps of patches. What the inputs say nothing of, and every tensor that is no linear map
    or is used in another way too (an output layer tied to an embedding), is averaged by the
    weights.

    Args:
        weights: how much of each model.
        alpha: factor of the off-diagonals, 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise MetanetError(f"method 'regmean': alpha={alpha}: give 0 to 1")
    plain = average(part.tensors, weights, "regmean")
    blocks: dict[Block, list[Tensor | None]] = part.prepared.get(part.name, {})
    if not blocks:
        return plain
    out = plain.clone(memory_format=torch.contiguous_format)
    for block, products in blocks.items():
        centre = block.of(plain).double()
        total = torch.zeros((), dtype=torch.float64, device=plain.device)
        pulled = torch.zeros((), dtype=torch.float64, device=plain.device)
        for weight, tensor, gram in zip(weights, part.tensors, products, strict=True):
            if gram is None:
                continue
            shrunk = weight * _shrunk(gram.to(plain.device), alpha)
            total = total + shrunk
            # By differences to the average: equal matrices stay as they are, and so does what no
            # input reaches.
            pulled = pulled + shrunk @ (block.of(tensor).double() - centre).mT
        block.of(out).copy_(centre + _solved(total, pulled, alpha).mT)
    return out


def _shrunk(gram: Tensor, alpha: float) -> Tensor:
    """With off-diagonals scaled; ``(batch, inputs, inputs)``."""
    return alpha * gram + (1 - alpha) * torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))


def _solved(total: Tensor, pulled: Tensor, alpha: float) -> Tensor:
    """The smallest solution of ``total @ x = pulled``."""
    size = total.diagonal(dim1=-2, dim2=-1)
    if alpha < 1:
        # Scaled to a diagonal of ones, no eigenvalue is below 1 - alpha; inputs that are always 0
        # move nothing.
        scale = torch.where(size > 0, size.clamp(min=torch.finfo(size.dtype).tiny).rsqrt(), 0.0)
        scaled = total * scale.unsqueeze(-1) * scale.unsqueeze(-2) + torch.diag_embed(
            (size <= 0).to(size)
        )
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if not bool(failed.any()):
            return scale.unsqueeze(-1) * torch.cholesky_solve(scale.unsqueeze(-1) * pulled, factor)
    values, vectors = torch.linalg.eigh(total)
    bound = values.abs().amax(-1, keepdim=True) * values.shape[-1] * torch.finfo(values.dtype).eps
    inverse = torch.where(values.abs() > bound, 1 / values, 0.0)
    return vectors @ (inverse.unsqueeze(-1) * (vectors.mT @ pulled))
