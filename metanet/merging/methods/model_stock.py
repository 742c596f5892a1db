"""Near the centre of fine-tuned models, by the angles between them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._part import Part
from .._registry import method
from ._sphere import combination, cosines, gram, gram_of_rows

_SINGULAR = 1e-6


@method("model_stock", reference="https://arxiv.org/abs/2403.19522", base="required")
def model_stock(part: Part, *, filter_wise: bool = False) -> Tensor:
    r"""Between base and average, by the angles between models (Model Stock, Jang et al. 2024).

    .. math::
        w = w_0 + \frac{n \cos\theta}{1 + (n - 1) \cos\theta} \; \Big(\frac{1}{n} \sum_k w_k -
        w_0\Big)

    with the mean cosine between what two models changed of the base. Where they oppose one another
    so that the formula has a pole, the base stays.

    Args:
        filter_wise: one angle for each row of a matrix and each output channel of a kernel, not one
            for each tensor.
    """
    count = len(part.deltas)
    cosine = _mean_cosine(part.deltas, filter_wise and part.deltas[0].ndim > 1)
    below = 1 + (count - 1) * cosine
    ratio = torch.where(below.abs() < _SINGULAR, 0, count * cosine / below)
    mean = combination(part.deltas, [1 / count] * count)
    return part.origin + mean * ratio.to(mean).reshape([-1, *[1] * (mean.ndim - 1)][: mean.ndim])


def _mean_cosine(deltas: Sequence[Tensor], rows: bool) -> Tensor:
    """Of all pairs ``(1,)``, or for each row ``(rows,)``."""
    products = gram_of_rows([delta.flatten(1) for delta in deltas]) if rows else gram(deltas)[None]
    first, second = torch.triu_indices(len(deltas), len(deltas), 1)
    return cosines(products)[1][:, first, second].mean(-1)
