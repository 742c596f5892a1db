"""Means and variances of channels, in one pass."""

import torch
from torch import Tensor


class Moments:
    """Mean and variance of every channel over all that is added, in float64.

    Merged batch by batch (Chan, Golub & LeVeque 1983,
    https://doi.org/10.1080/00031305.1983.10483115): neither the order of the batches nor their
    sizes matter, and nothing is lost where means are large.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor, axis: int) -> None:
        """Take in values, of which the channels lie along ``axis``."""
        if not values.numel():
            return
        values = values.movedim(axis, 0)[
            :, None
        ]  # one axis more, for values that are one sample without batch
        values = values.float() if values.dtype.itemsize < 4 else values
        over, count = tuple(range(1, values.ndim)), values[0].numel()
        mean = values.mean(over, dtype=torch.float64)
        shift = mean.to(values.dtype)
        squares = (
            (values - shift.view(-1, *[1] * len(over))).square().sum(over, dtype=torch.float64)
        )
        self._merge(count, mean, squares - count * (mean - shift).square())

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total, between = self.count + count, mean - self._mean.to(mean.device)
        self._squares = (
            self._squares.to(mean.device)
            + squares
            + between.square() * (self.count * count / total)
        )
        self._mean = self._mean.to(mean.device) + between * (count / total)
        self.count = total

    @property
    def constant(self) -> bool:
        """Whether one value of every channel is all there is."""
        return self.count == 1

    @property
    def mean(self) -> Tensor:
        """Of every channel."""
        return self._mean

    @property
    def std(self) -> Tensor:
        """The standard deviation of every channel over what was added (that of the population)."""
        return (self._squares / max(1, self.count)).clamp(min=0).sqrt()

    @property
    def variance(self) -> Tensor:
        """The variance, without bias, as BatchNorm keeps it; 0 where one value is all there is."""
        return self._squares.clamp(min=0) / max(1, self.count - 1)


class InstanceMoments(Moments):
    """What InstanceNorm keeps: the averages over samples of each one's own mean and variance."""

    constant = False  # each sample has a variance of its own, 0 where it is one place

    def add(self, values: Tensor, axis: int) -> None:
        """Take in values ``(..., channels, places...)``, of which the channels lie along ``axis``:
        0 or 1."""
        values = values if axis else values[None]
        flat = values.flatten(2).double()
        self._variances = (
            getattr(self, "_variances", 0) + flat.var(2).sum(0)
            if flat.shape[2] > 1
            else flat.new_zeros(1)
        )
        self._mean = (self._mean.to(flat.device) * self.count + flat.mean(2).sum(0)) / (
            self.count + len(flat)
        )
        self.count += len(flat)

    @property
    def variance(self) -> Tensor:
        """Average of the samples' variances."""
        return self._variances / self.count


def unpadded(values: Tensor, axis: int, mask: Tensor | None) -> tuple[Tensor, int]:
    """Values at tokens that count, and the axis of their channels then.

    Tokens are looked for in three places::

        (batch, tokens, ..., channels)    (batch, channels, tokens)    (batch tokens, channels)

    Args:
        mask: ``(batch, tokens)``, not 0 where a token counts; ``None`` if all do. What has no
            tokens stays whole.
    """
    axis %= values.ndim
    if mask is None or mask.ndim != 2:
        return values, axis
    mask = mask.to(values.device).bool()
    if axis > 1 and values.shape[:2] == mask.shape:
        return values[mask], axis - 1
    if axis == 1 and values.ndim == 3 and values.shape[::2] == mask.shape:  # channels before tokens
        return values.movedim(1, 2)[mask], 1
    in_one_row = axis == 1 and values.ndim == 2 and len(values) == mask.numel()
    return (values[mask.flatten()], 1) if in_one_row else (values, axis)
