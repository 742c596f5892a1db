"""The mean on the sphere."""

import torch
from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from .._registry import PerModel, method
from ._sphere import combination, cosines, gram


@method("karcher", reference="https://doi.org/10.1002/cpa.3160300502")
def karcher(
    part: Part, *, weights: PerModel = 1.0, max_iter: int = 10, tol: float = 1e-5
) -> Tensor:
    """The mean direction along arcs (Karcher 1977) times the average length: SLERP of many.

    All steps of the search stay in the span of the models, so that only their inner products are
    needed.

    Args:
        weights: how much of each model.
        max_iter: bound on the steps.
        tol: a step shorter than this (an angle) is the last one.
    """
    total = sum(weights)
    if total == 0:
        raise MetanetError(f"method 'karcher': the weights {list(weights)} have the sum 0")
    shares = torch.tensor(weights, dtype=torch.float64) / total
    lengths, angles = cosines(gram(part.tensors))
    inverse = torch.where(lengths > 0, 1 / lengths, 0)
    coefficients = _centre(angles, torch.where(lengths > 0, shares, 0), max_iter, tol) * inverse
    return combination(part.tensors, (coefficients * (shares @ lengths)).tolist())


def _centre(angles: Tensor, weights: Tensor, max_iter: int, tol: float) -> Tensor:
    """The centre of unit vectors, as coefficients on them.

    Args:
        angles: cosines between all of them.
        weights: 0 for those that are no vectors.
    """

    def length(point: Tensor) -> float:
        return float((point @ angles @ point).clamp(min=0).sqrt())

    if not weights.any():
        return weights
    weights = weights / weights.sum()
    # Directions that cancel out have no mean; the search then starts at the first of them.
    first = torch.zeros_like(weights)
    first[int(weights.nonzero()[0])] = 1
    point = weights / length(weights) if length(weights) > tol else first
    for _ in range(int(max_iter)):
        cosine = (angles @ point).clamp(-1, 1)
        angle = cosine.acos()
        # At the point itself the factor tends to 1; opposite of it, every direction leads there,
        # and none is taken.
        pull = weights * torch.where(angle.sin() > tol, angle / angle.sin(), 1)
        step = pull - (pull @ cosine) * point
        size = length(step)
        if size < tol:
            break
        point = torch.tensor(size).cos() * point + torch.tensor(size).sin() / size * step
        point = point / length(point)
    return point
