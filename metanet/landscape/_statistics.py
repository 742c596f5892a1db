"""Running statistics of BatchNorm, measured anew."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import MetanetError
from ..evaluation import Runner
from ..tracing import tensors_in

STATISTICS = ("keep", "reset")


def normalisers(model: nn.Module) -> list[_NormBase]:
    """The layers that normalise by running statistics."""
    return [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]


def reset_statistics(model: nn.Module, data: Iterable[Any], run: Runner) -> None:
    """Replace running statistics by averages over data, each batch counted alike.

    Between two networks the interpolated statistics are those of neither, nor of what lies between (Jordan et al. 2022,
    https://arxiv.org/abs/2211.08403). A batch of one sample, which has no variance, is left out.

    Raises:
        MetanetError: no batch of two samples or more.
    """
    layers = normalisers(model)
    momenta = [layer.momentum for layer in layers]
    seen = False
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average
            layer.train()
        with torch.no_grad():
            for batch in data:
                if len(next(tensors_in(batch))) > 1:
                    run(model, batch)
                    seen = True
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    if not seen:
        raise MetanetError("statistics='reset' needs data in batches of two samples or more")
