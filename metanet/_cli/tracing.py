"""Tracing the network that a command is given: its inputs by ``input_shape=``, or as the network
itself says."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..architecture import Architecture, trace
from ..errors import MetanetError, TraceError
from ..evaluation import check_sample_shape, to_device
from ..sources import seeded_network
from ..tracing import example_inputs
from .devices import find_tracing_device

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]

_OWN_INPUTS = (
    "set an attribute example_inputs on the module in the function that makes it: a tuple of inputs, batch size 2 or "
    "more, or a dict of keyword inputs"
)


def make_network(options: Mapping[str, Any]) -> tuple[nn.Module, list[Inputs], str]:
    """The network ``arch`` with random weights of ``seed``, its examples, and the device that has
    both.

    Raises:
        MetanetError: there is no such network or device, or nothing says what the network takes.
    """
    ref, device = options["arch"], find_tracing_device(options["device"])
    model = seeded_network(ref, options["seed"], device == "meta", options["arch_args"])
    examples = examples_of(model, ref, options["input_shape"], options["seed"])
    if device != "meta":  # where the recorder takes inputs that have values
        model, examples = model.to(device), [to_device(each, device) for each in examples]
    return model, examples, device


def examples_of(model: nn.Module, ref: str, input_shape: Any, seed: int) -> list[Inputs]:
    """The example and, where there is one, its check.

    Args:
        input_shape: of one sample; ``None`` for what the network itself says.

    Raises:
        MetanetError: it is no shape, or nothing says what the network takes.
    """
    if input_shape is not None:
        shape = check_sample_shape(input_shape)
        generator = torch.Generator().manual_seed(seed)
        return [((torch.randn(batch, *shape, generator=generator),), {}) for batch in (2, 3)]
    example = example_inputs(model)
    if example is None:
        raise MetanetError(
            f"{ref}: nothing says what {type(model).__name__} takes. Give input_shape= of one sample, e.g. "
            f"input_shape=[1,28,28], or {_OWN_INPUTS}."
        )
    return [(example.args, example.kwargs), *([example.check] if example.check is not None else [])]


def trace_timed(
    model: nn.Module, ref: str, examples: list[Inputs], input_shape: Any
) -> tuple[Architecture, float]:
    """The architecture, and the seconds it took.

    Raises:
        TraceError: the network can't run the examples.
    """
    (args, kwargs), *checks = examples
    started = time.perf_counter()
    try:
        arch = trace(model, *args, check_inputs=checks[0] if checks else None, **kwargs)
    except TraceError as error:
        if input_shape is None:
            raise
        raise TraceError(
            f"{error}\n  input_shape= makes one input of floating-point numbers. Does {ref} take integers, or several "
            f"inputs? Then {_OWN_INPUTS}."
        ) from error
    return arch, time.perf_counter() - started
