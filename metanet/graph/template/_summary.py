"""What a coarse graph tells of a block of entries."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ._blocks import Block

SUMMARY: tuple[str, ...] = (
    "rms", "mean", "std", "min", "q25", "median", "q75", "max",
    "mean_abs", "zeros", "nonfinite", "log10_count",
)  # fmt: skip
"""Features of a block's entries.

All but ``nonfinite`` (a share, as ``zeros``) are of its finite entries.
"""

HOLDS_SUMMARIES = (
    "a graph of granularity 'tensor' holds summaries: no checkpoint can be read from it"
)


def summaries(
    blocks: Sequence[Block],
    starts: Mapping[str, int],
    tensors: Mapping[str, Tensor],
    batch: tuple[int, ...],
) -> Float[Tensor, "*batch blocks features"]:
    """:data:`SUMMARY` of every block, one tensor in memory at a time; constant edges are ones.

    Args:
        blocks: of a template of neuron granularity.
        starts: for each tensor its first edge.
        tensors: real ones, with leading ``batch`` axes; may be lazy.
    """
    out = torch.zeros((*batch, len(blocks), len(SUMMARY)))
    read, flat = None, torch.empty(0)
    for number, b in enumerate(blocks):
        if b.tensor is None:
            out[..., number, :] = torch.tensor(_of(np.ones(b.count, dtype=np.float32)))
            continue
        if b.tensor != read:  # the blocks of one tensor stand together
            read, flat = b.tensor, tensors[b.tensor].detach().cpu().reshape(*(batch or (1,)), -1)
        for i, row in enumerate(flat):
            part = row.as_strided(
                b.shape, b.edge_strides, row.storage_offset() + b.start - starts[b.tensor]
            )
            wide = torch.float64 if row.dtype == torch.float64 else torch.float32
            out[(i, number) if batch else (number,)] = torch.tensor(_of(part.to(wide).numpy()))
    return out


def _of(values: np.ndarray) -> list[float]:
    """The features of some numbers."""
    values = values.reshape(-1)
    finite = values[np.isfinite(values)]
    share = 1 - len(finite) / max(len(values), 1)
    if not len(finite):
        return [0.0] * 10 + [share, float(np.log10(max(len(values), 1)))]
    low, q25, median, q75, high = np.quantile(finite, (0, 0.25, 0.5, 0.75, 1))
    mean, square = finite.mean(dtype=np.float64), np.square(finite, dtype=np.float64).mean()
    return [float(x) for x in (
        np.sqrt(square), mean, finite.std(dtype=np.float64), low, q25, median, q75, high,
        np.abs(finite).mean(dtype=np.float64), (finite == 0).mean(), share, np.log10(len(values)),
    )]  # fmt: skip
