"""The average of directions and lengths."""

import torch
from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from .._registry import PerModel, method
from ._sphere import combination, cosines, gram

_OPPOSED = 1e-7  # an average of directions that is shorter than this has none itself


@method(
    "multislerp",
    reference="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    base="optional",
)
def multislerp(part: Part, *, weights: PerModel = 1.0, normalize: bool = True) -> Tensor:
    """Average direction times average length, of models or of their changes (Multi-SLERP).

    The method's second step, in the tangent space at the average direction, moves nothing: the
    tangent vectors there have the weighted sum zero. ``karcher`` takes the mean along arcs.

    Args:
        weights: how much of each model.
        normalize: divide by the sum of the weights.
    """
    total = sum(weights)
    if normalize and total == 0:
        raise MetanetError(
            f"method 'multislerp': the weights {list(weights)} have the sum 0; give normalize=false"
        )
    shares = torch.tensor(weights, dtype=torch.float64) / (total if normalize else 1.0)
    points = part.tensors if part.base is None else part.deltas
    lengths, angles = cosines(gram(points))
    length = float((shares @ angles @ shares).clamp(min=0).sqrt())
    if length > _OPPOSED:
        inverse = torch.where(lengths > 0, 1 / lengths, 0)
        coefficients = shares * inverse * float(shares @ lengths) / length
    elif len(points) == 2 or not lengths.any():
        coefficients = shares
    else:
        raise MetanetError(
            f"{part.name}: the directions of the models cancel out, so that they have no average; "
            "method 'multislerp' needs other weights there, or overrides={NAME: {'take': 0}}"
        )
    out = combination(points, coefficients.tolist())
    return out if part.base is None else out + part.origin
