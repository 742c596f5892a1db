"""DARE with a sum."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import drawn, summed


@method(
    "dare_linear", reference="https://arxiv.org/abs/2311.03099", base="required", models=(1, None)
)
def dare_linear(
    part: Part,
    *,
    weights: PerModel = 1.0,
    density: PerModel = 1.0,
    normalize: bool = False,
    rescale: bool | str = True,
    scale: float = 1.0,
) -> Tensor:
    """DARE: changes drawn at random and made larger, summed (Yu et al. 2024).

    Args:
        weights: how much of each model.
        density: probability of each change to be kept.
        normalize: divide by the sum of the weights, unless that is 0.
        rescale: make what is kept larger, to the sum of magnitudes that all changes had;
            "probability", as the paper does, divides it by its probability.
        scale: of what is added to the base.
    """
    vectors = [drawn(part, k, share, rescale) for k, share in enumerate(density)]
    return summed(part, vectors, weights, normalize, scale)
