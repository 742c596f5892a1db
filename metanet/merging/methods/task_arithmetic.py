"""Task arithmetic."""

from torch import Tensor

from .._part import Part
from .._registry import PerModel, method
from ..task_vectors import TaskVector, summed


@method(
    "task_arithmetic",
    reference="https://arxiv.org/abs/2212.04089",
    base="required",
    models=(1, None),
)
def task_arithmetic(
    part: Part, *, weights: PerModel = 1.0, normalize: bool = False, scale: float = 1.0
) -> Tensor:
    """The base plus a weighted sum of what the models changed of it (Ilharco et al. 2023).

    Args:
        weights: how much of each model.
        normalize: divide by the sum of the weights, unless that is 0.
        scale: of what is added to the base.
    """
    vectors = [TaskVector.of(part, k) for k in range(len(weights))]
    return summed(part, vectors, weights, normalize, scale)
