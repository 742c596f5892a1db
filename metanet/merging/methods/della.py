"""DELLA merging."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import drawn_by_rank, elected


@method("della", reference="https://arxiv.org/abs/2406.11617", base="required", models=(1, None))
def della(
    part: Part,
    *,
    weights: PerModel = 1.0,
    density: PerModel = 1.0,
    epsilon: PerModel = 0.15,
    consensus: str = "sum",
    normalize: bool = True,
    rescale: bool | str = True,
    scale: float = 1.0,
) -> Tensor:
    """DELLA: changes drawn by magnitude, those whose sign wins (Deep et al. 2024).

    Args:
        weights: how much of each model.
        density: mean probability of the changes to be kept.
        epsilon: how much higher it is for each neuron's largest change, and lower for its smallest.
        consensus: the sign that wins: of the "sum" of the weighted changes, or of most models
            ("count").
        normalize: divide by the sum of the weights of the models whose sign won.
        rescale: make what is kept larger, to the sum of magnitudes that all changes had;
            "probability", as the paper does, divides it by its probability.
        scale: of what is added to the base.
    """
    shares = zip(density, epsilon, strict=True)
    vectors = [drawn_by_rank(part, k, *pair, rescale) for k, pair in enumerate(shares)]
    return elected(part, vectors, weights, consensus, normalize, scale)
