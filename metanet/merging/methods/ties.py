"""TIES merging."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import elected, largest


@method("ties", reference="https://arxiv.org/abs/2306.01708", base="required", models=(1, None))
def ties(
    part: Part,
    *,
    weights: PerModel = 1.0,
    density: PerModel = 1.0,
    consensus: str = "sum",
    normalize: bool = True,
    rescale: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """TIES: each model's largest changes, those whose sign wins, averaged (Yadav et al. 2023).

    Args:
        weights: how much of each model.
        density: share of the changes that is kept, the largest ones.
        consensus: the sign that wins: of the "sum" of the weighted changes, or of most models
            ("count").
        normalize: divide by the sum of the weights of the models whose sign won.
        rescale: make what is kept larger, to the sum of magnitudes that all changes had.
        scale: of what is added to the base.
    """
    vectors = [largest(part, k, share, rescale) for k, share in enumerate(density)]
    return elected(part, vectors, weights, consensus, normalize, scale)
