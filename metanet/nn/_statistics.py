"""The seven statistics of a tensor that StatNN reads: mean, variance and five quantiles."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

QUANTILES: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
STATISTICS: tuple[str, ...] = (
    "mean",
    "variance",
    *(f"quantile_{round(100 * q)}" for q in QUANTILES),
)


def statistics_of_rows(rows: Float[Tensor, "graphs entries"]) -> Float[Tensor, "graphs 7"]:
    """Statistics of every row; quantiles interpolate linearly, as numpy's do."""
    entries = rows.shape[1]
    mean = rows.mean(1, keepdim=True)
    out = [mean[:, 0], (rows - mean).square().mean(1)]
    ordered = rows.sort(1).values
    for q in QUANTILES:
        low = int(q * (entries - 1))
        high = min(low + 1, entries - 1)
        out.append(_between(ordered[:, low], ordered[:, high], q * (entries - 1) - low))
    return torch.stack(out, 1)


def statistics_of_segments(
    values: Float[Tensor, " entries"], segment: Int[Tensor, " entries"], segments: int
) -> Float[Tensor, "segments 7"]:
    """The same for segments of unequal length, entries in any order."""
    count = torch.bincount(segment, minlength=segments)
    size = count.to(values.dtype)
    mean = values.new_zeros(segments).index_add_(0, segment, values) / size
    squares = (values - mean[segment]).square()
    out = [mean, values.new_zeros(segments).index_add_(0, segment, squares) / size]
    by_value = values.argsort()
    ordered = values[by_value[segment[by_value].argsort(stable=True)]]
    first, last = count.cumsum(0) - count, count - 1
    for q in QUANTILES:
        at = q * last.double()  # as exact as Python's floats in the other form
        low = at.long()
        high = torch.minimum(low + 1, last)
        out.append(
            _between(ordered[first + low], ordered[first + high], (at - low).to(values.dtype))
        )
    return torch.stack(out, 1)


def _between(low: Tensor, high: Tensor, share: Tensor | float) -> Tensor:
    return low + (high - low) * share
