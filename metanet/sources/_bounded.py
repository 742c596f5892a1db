"""Networks of sizes that a file states: made without memory first, and given up once they outgrow
what is stored."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from ..errors import MetanetError

Made = Any


class _TooLarge(MetanetError):
    """More than the tensors that are there can account for."""


def build_within(make: Callable[[], Made], stored: Mapping[str, Any], who: str) -> Made:
    """``make()``, once it is known that the result is not too large.

    It may be no larger than the tensors that belong to it.

    The network is made twice, first on the meta device, where ``layers: 2**62`` ends as soon as
    there are more layers than stored tensors, and ``width: 2**40`` takes no memory.

    Args:
        make: gives a module, or an object without modules.
        stored: the tensors that it is to hold, or their shapes.
        who: what states the sizes, for messages.

    Raises:
        MetanetError: it is larger, or its arguments make no network at all.
    """
    shapes = [getattr(tensor, "shape", tensor) for tensor in stored.values()]
    numbers = sum(torch.Size(shape).numel() for shape in shapes)
    try:
        with torch.device("meta"), _limits(numbers, len(shapes), who):
            make()
        return make()
    except MetanetError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        short = str(error).splitlines()[0][:200] if str(error) else ""
        raise MetanetError(
            f"{who} describes no network that can be made: {type(error).__name__}: {short}"
        ) from error


@contextmanager
def _limits(numbers: int, tensors: int, who: str) -> Iterator[None]:
    """Count what modules register. Generous: tied and replaced parameters are registered more than
    once."""
    most = {
        "numbers": 4 * numbers + 2**20,
        "tensors": 4 * tensors + 1_000,
        "modules": 50 * tensors + 1_000,
    }
    counts = dict.fromkeys(most, 0)

    def count(kind: str, amount: int) -> None:
        counts[kind] += amount
        if counts[kind] > most[kind]:
            raise _TooLarge(
                f"{who} states sizes that are not those of its tensors: "
                f"they are {tensors:,} of {numbers:,} numbers, "
                f"and the network would have more than {most[kind]:,} {kind}"
            )

    def tensor(module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is not None:
            count("tensors", 1)
            count("numbers", value.numel())

    def child(module: nn.Module, name: str, inner: nn.Module | None) -> None:
        count("modules", 1)

    handles = [
        hooks.register_module_parameter_registration_hook(tensor),
        hooks.register_module_buffer_registration_hook(tensor),
        hooks.register_module_module_registration_hook(child),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
