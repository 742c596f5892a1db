"""The straight path between two checkpoints, written point by point into a copy of the network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..evaluation import entries, still_copy, wide_dtype
from ..tracing import is_integer


class StraightPath:
    """The networks between two checkpoints; one copy of the module stands for all of them, in turn.

    Args:
        model: the module.
        a, b: checkpoints by the names of the network.
        device: where the network is to run.

    Raises:
        MetanetError: the module is on the meta device, where nothing runs.
    """

    def __init__(
        self, model: nn.Module, a: Mapping[str, Tensor], b: Mapping[str, Tensor], device: torch.device
    ) -> None:  # fmt: skip
        self.model = still_copy(model, device)
        self.a, self.b = a, b
        tensors, first = entries(self.model)
        self._tensors = {n: t for n, t in tensors.items() if first[n] == n}  # tied ones once

    @torch.no_grad()
    def at(self, share: float) -> nn.Module:
        """The network at ``(1 - share) a + share b``, with the integers of ``a``; the next call
        overwrites it."""
        for name, tensor in self._tensors.items():
            if name not in self.a:
                continue
            start = self.a[name].to(tensor.device)
            if not is_integer(tensor.dtype):
                end = self.b[name].to(tensor.device)
                wide = wide_dtype((start.dtype, end.dtype, tensor.dtype))
                # lerp: exactly a and b at the ends, and exactly a everywhere if b is a
                start = torch.lerp(start.to(wide), end.to(wide), share)
            tensor.copy_(start)
        return self.model
