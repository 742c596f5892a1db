"""Layers that normalise by running statistics."""

import torch
from torch import Tensor, nn

from ._moments import InstanceMoments, Moments, unpadded


def normalisers(model: nn.Module) -> dict[str, nn.Module]:
    """By name all that keep a running mean and variance of every channel: BatchNorm, also frozen or
    synchronised."""
    return {name: module for name, module in model.named_modules() if _keeps_statistics(module)}


def _keeps_statistics(module: nn.Module) -> bool:
    mean = getattr(module, "running_mean", None)
    variance = getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return False
    known = not isinstance(mean, nn.UninitializedBuffer)
    return known and mean.ndim == 1 and mean.shape == variance.shape


class Normaliser:
    """Measures the running statistics of one layer anew.

    Args:
        name: of the layer.
        module: the layer.
    """

    moments: Moments

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        axes = [count for count, kind in enumerate(kinds, 2) if isinstance(module, kind)]
        self._axes = axes[0] if axes else None  # of one sample
        self.begin()

    def begin(self) -> None:
        """The next pass over the data."""
        self.moments = Moments() if self._axes is None else InstanceMoments()
        self.calls = 0

    def see(self, value: Tensor, mask: Tensor | None) -> None:
        """Take in an input; its channels lie first in one sample of InstanceNorm, else second.

        Args:
            mask: of the tokens that count.
        """
        self.calls += 1
        if value.ndim == self._axes:
            self.moments.add(value, 0)
        else:
            self.moments.add(*unpadded(value, 1, mask))

    @torch.no_grad()
    def settle(self) -> float:
        """Let the layer use what was measured; how much that changes, in standard deviations."""
        if not self.moments.count:
            return 0.0
        mean = self.moments.mean
        variance = self.moments.variance
        running_mean = self._running("mean")
        running_var = self._running("var")
        spread = variance.sqrt()
        before = running_var.double().clamp(min=0).sqrt()
        means = (mean - running_mean.double()).abs().max()
        spreads = (spread - before).abs().max()
        size = spread.max().clamp(min=torch.finfo(torch.float32).tiny)
        running_mean.copy_(mean)
        running_var.copy_(variance)
        return float(torch.maximum(means, spreads) / size)

    def _running(self, which: str) -> Tensor:
        value: Tensor = getattr(self.module, f"running_{which}")
        return value
