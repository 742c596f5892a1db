"""Along the arc between two models, or two changes of a base, tensor by tensor or row by row."""

import torch
from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from .._registry import PerModel, method
from ._sphere import combination, cosines, gram, gram_of_rows
from .slerp import arc

_STRAIGHT = 1e-12  # only vectors that are as good as parallel have no arc


@method("nuslerp", reference="https://github.com/arcee-ai/mergekit", base="optional", models=(2, 2))
def nuslerp(part: Part, *, weights: PerModel = 1.0, flatten: bool = True, dim: int = -1) -> Tensor:
    """SLERP by weights of two models or of their changes, also row by row (mergekit).

    Args:
        weights: of both models; only their ratio counts.
        flatten: a tensor is one vector.
        dim: if not flattened, the axis along which vectors lie: -1 for the rows of a matrix, 0 for
            its columns.
    """
    total = sum(weights)
    if total == 0:
        raise MetanetError(f"method 'nuslerp': the weights {list(weights)} have the sum 0")
    t = weights[1] / total
    ends = part.tensors if part.base is None else part.deltas
    if flatten or ends[0].ndim == 0:
        _, angles = cosines(gram(ends))
        out = combination(ends, arc(t, float(angles[0, 1]), _STRAIGHT))
    else:
        first, second = ends
        out = _by_rows(t, first, second, dim)
    return out if part.base is None else out + part.origin


def _by_rows(t: float, a: Tensor, b: Tensor, dim: int) -> Tensor:
    if not -a.ndim <= dim < a.ndim:
        raise MetanetError(
            f"method 'nuslerp': there is no axis dim={dim} in a tensor of {a.ndim} axes"
        )
    vectors = [end.movedim(dim, -1) for end in (a, b)]
    products = gram_of_rows([vector.unsqueeze(0).flatten(0, -2) for vector in vectors])
    cosine = cosines(products)[1][:, 0, 1].reshape(vectors[0].shape[:-1]).unsqueeze(dim)
    straight = 1 - cosine.abs() < _STRAIGHT
    angle = torch.where(straight, 1.0, cosine).acos()
    of_a, of_b = (torch.where(straight, s, (s * angle).sin() / angle.sin()) for s in (1 - t, t))
    # As a sum of differences to the first, so that equal rows stay, bit for bit.
    excess = torch.where(straight, 0.0, of_a + of_b - 1)
    return a + (b - a) * of_b.to(a) + a * excess.to(a)
