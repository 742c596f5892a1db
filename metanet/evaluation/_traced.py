"""Tracing a network that data is given for."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..architecture import Architecture, trace
from ..errors import MetanetError
from ..tracing import example_inputs
from ._running import batch_inputs


def traced(model: nn.Module, data: Iterable[Any] | None) -> Architecture:
    """The architecture of a network.

    Traced by its own examples where it has some, else by the first batch.

    Args:
        data: batches ``(inputs, target)`` or dicts of keyword inputs.

    Raises:
        MetanetError: there is nothing to run it on.
    """
    if example_inputs(model) is not None:
        return trace(model)
    if data is None:
        raise MetanetError(
            "this needs the architecture: give arch=metanet.trace(model, inputs), or data=..."
        )
    args, kwargs = batch_inputs(next(iter(data)))
    return trace(model, *args, **kwargs)
