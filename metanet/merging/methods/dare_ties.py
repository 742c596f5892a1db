"""DARE with the sign election of TIES."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import drawn, elected


@method(
    "dare_ties", reference="https://arxiv.org/abs/2311.03099", base="required", models=(1, None)
)
def dare_ties(
    part: Part,
    *,
    weights: PerModel = 1.0,
    density: PerModel = 1.0,
    consensus: str = "sum",
    normalize: bool = False,
    rescale: bool | str = True,
    scale: float = 1.0,
) -> Tensor:
    """DARE with TIES: changes drawn and made larger, those whose sign wins (Yu et al. 2024).

    Args:
        weights: how much of each model.
        density: probability of each change to be kept.
        consensus: the sign that wins: of the "sum" of the weighted changes, or of most models
            ("count").
        normalize: divide by the sum of the weights of the models whose sign won.
        rescale: make what is kept larger, to the sum of magnitudes that all changes had;
            "probability", as the paper does, divides it by its probability.
        scale: of what is added to the base.
    """
    vectors = [drawn(part, k, share, rescale) for k, share in enumerate(density)]
    return elected(part, vectors, weights, consensus, normalize, scale)
