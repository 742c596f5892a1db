"""Tracing the network that a command is given: its inputs by ``input_shape=``, or as the network
itself says."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..architecture import Architecture, trace
from ..errors import MetanetError, TraceError
from ..evaluation import check_sample_shape, to_device
from ..sources import seeded_network
from ..tracing import example_inputs
from .devices import find_device

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]

_OWN_INPUTS = (
    "set an attribute example_inputs on the module in the function that makes it: "
    "a tuple of inputs, batch size 2 or more, or a dict of keyword inputs"
)


def make_network(options: Mapping[str, Any]) -> tuple[nn.Module, list[Inputs], torch.device]:
    """The network ``arch`` with random weights of ``seed``, its examples, and the device that has
    both.

    Raises:
        MetanetError: there is no such network or device, or nothing says what the network takes.
    """
    ref = options["arch"]
    seed = options["seed"]
    device = find_device(options["device"], tracing=True)
    model = seeded_network(ref, seed, device.type == "meta", options["arch_args"])
    examples = examples_of(model, ref, options["input_shape"], seed)
    if device.type == "meta":
        return model, examples, device  # the recorder takes inputs that have values
    return model.to(device), [to_device(example, device) for example in examples], device


def examples_of(model: nn.Module, ref: str, input_shape: Any, seed: int) -> list[Inputs]:
    """The example and, where there is one, its check.

    Args:
        input_shape: of one sample; ``None`` for what the network itself says.

    Raises:
        MetanetError: it is no shape, or nothing says what the network takes.
    """
    if input_shape is not None:
        return _drawn(check_sample_shape(input_shape), seed)
    example = example_inputs(model)
    if example is None:
        raise MetanetError(
            f"{ref}: nothing says what {type(model).__name__} takes. "
            f"Give input_shape= of one sample, e.g. input_shape=[1,28,28], or {_OWN_INPUTS}."
        )
    examples = [(example.args, example.kwargs)]
    if example.check is not None:
        examples.append(example.check)
    return examples


def _drawn(shape: Sequence[int], seed: int) -> list[Inputs]:
    """Random samples of a shape: a batch of two, and one of three as its check."""
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(batch, *shape, generator=generator) for batch in (2, 3)]
    return [((batch,), {}) for batch in batches]


def trace_timed(
    model: nn.Module, ref: str, examples: list[Inputs], input_shape: Any
) -> tuple[Architecture, float]:
    """The architecture, and the seconds it took.

    Raises:
        TraceError: the network can't run the examples.
    """
    (args, kwargs), *checks = examples
    check = checks[0] if checks else None
    started = time.perf_counter()
    try:
        arch = trace(model, *args, check_inputs=check, **kwargs)
    except TraceError as error:
        if input_shape is None:
            raise
        raise TraceError(
            f"{error}\n  input_shape= makes one input of floating-point numbers. "
            f"Does {ref} take integers, or several inputs? Then {_OWN_INPUTS}."
        ) from error
    return arch, time.perf_counter() - started
