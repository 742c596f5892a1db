"""Model breadcrumbs with the sign election of TIES."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import elected, middle


@method(
    "breadcrumbs_ties",
    reference="https://arxiv.org/abs/2312.06795",
    base="required",
    models=(1, None),
)
def breadcrumbs_ties(
    part: Part,
    *,
    weights: PerModel = 1.0,
    density: PerModel = 1.0,
    gamma: PerModel = 0.01,
    consensus: str = "sum",
    normalize: bool = False,
    rescale: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """Changes in the middle whose sign wins, summed (Davari and Belilovsky 2024).

    Args:
        weights: how much of each model.
        density: share of the changes that is kept.
        gamma: share of the largest changes that is dropped; what is dropped besides is the
            smallest.
        consensus: the sign that wins: of the "sum" of the weighted changes, or of most models
            ("count").
        normalize: divide by the sum of the weights of the models whose sign won.
        rescale: make what is kept larger, to the sum of magnitudes that all changes had.
        scale: of what is added to the base.
    """
    shares = zip(density, gamma, strict=True)
    vectors = [middle(part, k, *pair, rescale) for k, pair in enumerate(shares)]
    return elected(part, vectors, weights, consensus, normalize, scale)
