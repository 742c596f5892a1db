"""Model breadcrumbs."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import middle, summed


@method(
    "breadcrumbs", reference="https://arxiv.org/abs/2312.06795", base="required", models=(1, None)
)
def breadcrumbs(
    part: Part,
    *,
    weights: PerModel = 1.0,
    density: PerModel = 1.0,
    gamma: PerModel = 0.01,
    normalize: bool = False,
    rescale: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """Changes but the largest and the smallest, summed (Davari and Belilovsky 2024).

    Args:
        weights: how much of each model.
        density: share of the changes that is kept.
        gamma: share of the largest changes that is dropped; what is dropped besides is the
            smallest.
        normalize: divide by the sum of the weights, unless that is 0.
        rescale: make what is kept larger, to the sum of magnitudes that all changes had.
        scale: of what is added to the base.
    """
    shares = zip(density, gamma, strict=True)
    vectors = [middle(part, k, *pair, rescale) for k, pair in enumerate(shares)]
    return summed(part, vectors, weights, normalize, scale)
