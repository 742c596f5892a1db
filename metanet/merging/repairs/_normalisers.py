"""Layers that normalise by running statistics."""

import torch
from torch import Tensor, nn

from ._moments import InstanceMoments, Moments, unpadded


def normalisers(model: nn.Module) -> dict[str, nn.Module]:
    """By name all that keep a running mean and variance of every channel: BatchNorm, also frozen or
    synchronised."""
    out = {}
    for name, module in model.named_modules():
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        both = isinstance(mean, Tensor) and isinstance(variance, Tensor)
        if (
            both
            and not isinstance(mean, nn.UninitializedBuffer)
            and mean.ndim == 1
            and mean.shape == variance.shape
        ):
            out[name] = module
    return out


class Normaliser:
    """Measures the running statistics of one layer anew.

    Args:
        name: of the layer.
        module: the layer.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module
        kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        self._sample = next(
            (n for n, kind in enumerate(kinds, 2) if isinstance(module, kind)), None
        )  # axes of one
        self.begin()

    def begin(self) -> None:
        """The next pass over the data."""
        self.moments = Moments() if self._sample is None else InstanceMoments()
        self.calls = 0

    def see(self, value: Tensor, mask: Tensor | None) -> None:
        """Take in an input; its channels lie first in one sample of InstanceNorm, else second.

        Args:
            mask: of the tokens that count.
        """
        self.calls += 1
        self.moments.add(*((value, 0) if value.ndim == self._sample else unpadded(value, 1, mask)))

    @torch.no_grad()
    def settle(self) -> float:
        """Let the layer use what was measured; how much that changes, in standard deviations."""
        if not self.moments.count:
            return 0.0
        mean, variance = self.moments.mean, self.moments.variance
        old = self.module.running_mean.double(), self.module.running_var.double().clamp(min=0)
        size = variance.sqrt().max().clamp(min=torch.finfo(torch.float32).tiny)
        change = (
            torch.maximum(
                (mean - old[0]).abs().max(), (variance.sqrt() - old[1].sqrt()).abs().max()
            )
            / size
        )
        self.module.running_mean.copy_(mean)
        self.module.running_var.copy_(variance)
        return float(change)
