"""Which entries of a task vector are kept: the largest, those in the middle, or some drawn at
random."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from ._ranking import edge_below
from ._vector import CHUNK, TaskVector, buffers, chunks

PROBABILITY = "probability"


def largest(part: Part, model: int, density: float, rescale: bool) -> TaskVector:
    """The entries of largest magnitude, of equal ones those that come first (Yadav et al. 2023).

    Args:
        density: share that is kept, rounded down; at least one entry unless it is 0.
        rescale: see :func:`rescaled`.
    """
    vector, size = _whole(part, model, density), part.origin.numel()
    if density == 0:
        return replace(vector, factor=0.0)
    edge = edge_below(vector, max(1, int(density * size)))
    return rescaled(vector, replace(vector, low=edge), rescale)


def middle(part: Part, model: int, density: float, gamma: float, rescale: bool) -> TaskVector:
    """The entries that are left when the largest and the smallest are dropped (Davari and
    Belilovsky 2024).

    Args:
        density: share that is kept, rounded down.
        gamma: share of the largest entries, which are dropped; fewer if the density leaves less to
            drop.
        rescale: see :func:`rescaled`.
    """
    vector, size = _whole(part, model, density), part.origin.numel()
    _check_share("gamma", gamma)
    staying = int(density * size)
    if density == 1 or size == 0:
        return vector
    if staying == 0:
        return replace(vector, factor=0.0)
    outliers = min(int(gamma * size), size - staying)
    high = edge_below(vector, outliers) if outliers else None
    return rescaled(
        vector, replace(vector, low=edge_below(vector, outliers + staying), high=high), rescale
    )


def drawn(part: Part, model: int, density: float, rescale: bool | str) -> TaskVector:
    """Entries drawn at random, all with the same probability (Yu et al. 2024).

    Args:
        density: the probability to be kept.
        rescale: see :func:`rescaled`; ``"probability"`` divides by the density.
    """
    vector = _whole(part, model, density)
    if density in (0, 1):
        return replace(vector, factor=float(density))
    generator, limit = part.generator(model), _limit(density)
    staying = np.empty(len(vector.base), dtype=bool)
    for start in range(0, len(staying), CHUNK):
        chunk = staying[start : start + CHUNK]
        np.less(_random(generator, len(chunk)), limit, out=chunk)
    some = replace(vector, factors=_factors(staying, vector))
    return (
        replace(some, factor=1 / density)
        if rescale == PROBABILITY
        else rescaled(vector, some, rescale)
    )


def drawn_by_rank(
    part: Part, model: int, density: float, epsilon: float, rescale: bool | str
) -> TaskVector:
    """Entries drawn at random, larger ones with a higher probability (Deep et al. 2024).

    It grows evenly with the rank of the magnitude among the weights of one neuron (of one row; of
    equal ones the first ranks lower), from ``density - epsilon`` to ``density + epsilon``.

    Args:
        density: the mean probability to be kept.
        epsilon: how far the probabilities of smallest and largest entry are from it.
        rescale: see :func:`rescaled`; ``"probability"`` divides every entry by its own.
    """
    vector = _whole(part, model, density)
    if density in (0, 1):
        return replace(vector, factor=float(density))
    if not 0 < density - abs(epsilon) <= density + abs(epsilon) < 1:
        raise MetanetError(
            f"{part.name}: density={density:g} and epsilon={epsilon:g} make probabilities of "
            f"{density - epsilon:g} to {density + epsilon:g}; they must be between 0 and 1: give a "
            "smaller epsilon, or density 1 or 0"
        )
    size = len(vector.base)
    length = size // max(1, part.origin.shape[0]) if part.origin.ndim > 1 else size
    ramp = density + (np.linspace(-epsilon, epsilon, length) if length > 1 else np.zeros(length))
    limits, generator = _limit(ramp), part.generator(model)
    inverse = rescale == PROBABILITY
    factors = np.empty(size, dtype=np.float32 if inverse else bool)
    block = max(1, CHUNK // max(1, length)) * length
    for start in range(0, size, max(1, block)):
        stop = min(size, start + block)
        order = _by_magnitude(vector.back(start, vector.base.new_empty(stop - start)).cpu(), length)
        staying = _random(generator, stop - start).reshape(-1, length) < limits
        factors[start:stop][order] = (staying / ramp if inverse else staying).reshape(-1)
    some = replace(vector, factors=_factors(factors, vector))
    return some if inverse else rescaled(vector, some, rescale)


def rescaled(whole: TaskVector, some: TaskVector, rescale: bool | str) -> TaskVector:
    """Entries that are left, made larger so that the sum of their magnitudes is that of the whole
    task vector.

    Args:
        rescale: ``False`` leaves them as they are.

    Raises:
        MetanetError: neither ``True`` nor ``False``.
    """
    if not isinstance(rescale, bool):
        raise MetanetError(
            f"rescale={rescale!r}: give true, false or, in DARE and DELLA, {PROBABILITY}"
        )
    if not rescale:
        return some
    before = after = 0.0
    buffer = buffers(whole.base, 1)[0]
    for start, stop in chunks(whole.base):
        back = whole.back(start, buffer[: stop - start])
        before += float(back.abs().sum())
        after += float(some.kept(start, back).abs().sum())
    return replace(some, factor=before / after) if after else some


def _whole(part: Part, model: int, density: float) -> TaskVector:
    _check_share("density", density)
    return TaskVector.of(part, model)


def _check_share(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise MetanetError(f"{option}={value:g}: give a share of the entries, 0 to 1")


def _random(generator: torch.Generator, count: int) -> np.ndarray:
    """Integers of 32 bits; two from each draw of 64, which is nearly twice as fast as
    ``torch.rand``."""
    draws = torch.empty((count + 1) // 2, dtype=torch.int64).random_(
        -(2**63), None, generator=generator
    )
    return draws.numpy().view(np.int32)[:count]


def _limit(probability: float | np.ndarray) -> np.ndarray:
    """The integer below which random ones lie with a probability less than 1."""
    return np.minimum(np.round((np.asarray(probability) - 0.5) * 2.0**32), 2**31 - 1).astype(
        np.int32
    )


def _factors(kept: np.ndarray, vector: TaskVector) -> Tensor:
    # PyTorch multiplies by bytes nearly three times as fast as by booleans.
    return torch.from_numpy(kept.view(np.int8) if kept.dtype == bool else kept).to(
        vector.base.device
    )


def _by_magnitude(rows: Tensor, length: int) -> np.ndarray:
    """Where the entries of each row lie in their ascending order by magnitude: flat places of flat
    rows.

    Magnitudes of float32 order like their bits: with the place behind them, they are sorted as
    integers.
    """
    keys = rows.to(torch.float32).abs().view(torch.int32).numpy().astype(np.int64)
    keys <<= 32
    keys |= np.arange(len(keys))
    keys.reshape(-1, length).sort(axis=1)
    keys &= (1 << 32) - 1
    return keys
