"""Correlations between the neurons of two networks, in one pass."""

import torch
from torch import Tensor


class Moments:
    """Sums over samples in float64, of values from which the mean of the first batch is taken off.

    That keeps the sums of squares near the variances, so that taking the squared mean off them
    loses nothing.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, a: Tensor, b: Tensor) -> None:
        """Samples of both networks, ``(neurons, samples)``, in the same order."""
        a, b = (x.float() if x.dtype.itemsize < 4 else x for x in (a, b))
        if not self.count:
            self._shift = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
            self._sums = [torch.zeros(len(x), dtype=torch.float64, device=x.device) for x in (a, b)]
            self._squares = [s.clone() for s in self._sums]
            self._products = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
        a, b = a - self._shift[0], b - self._shift[1]
        self.count += a.shape[1]
        for side, x in enumerate((a, b)):
            self._sums[side] += x.sum(1, dtype=torch.float64)
            self._squares[side] += x.square().sum(1, dtype=torch.float64)
        self._products += (a @ b.T).double()

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(neurons, neurons)`` between the networks, and the variances within each."""
        means = [s / self.count for s in self._sums]
        variances = [
            (q / self.count - m.square()).clamp(min=0)
            for q, m in zip(self._squares, means, strict=True)
        ]
        products = self._products / self.count - means[0][:, None] * means[1]
        return products, variances[0], variances[1]

    def correlations(self, dead: float = 1e-6) -> Tensor:
        """Pearson's coefficients, ``(neurons, neurons)``; 0 for neurons that hardly vary.

        Args:
            dead: a neuron is dead whose standard deviation is less than this share of the largest
                one's.
        """
        between, *variances = self.covariances()
        sizes = []
        for variance in variances:
            size = variance.sqrt()
            sizes.append(torch.where(size > dead * size.max(), size, torch.inf))
        return between / (sizes[0][:, None] * sizes[1])
