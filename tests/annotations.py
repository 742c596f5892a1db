"""The type checker of the tests, which jaxtyping's import hook puts on every function of the package."""

from collections.abc import Callable, Mapping

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintException
from torch import Tensor

_CONF = BeartypeConf(
    is_pep484_tower=True,  # an int is a float
    # one of the values would be looked at, and a lazy checkpoint would read it
    hint_overrides=FrozenDict({Mapping[str, Tensor]: Mapping}),
)

UNCHECKED: set[str] = set()
"""Functions with a hint that beartype can't check."""


def checked(function: Callable) -> Callable:
    """The function, its annotations checked at every call."""
    try:
        return beartype(conf=_CONF)(function)
    except BeartypeDecorHintException:
        UNCHECKED.add(f"{function.__module__}.{function.__qualname__}")
        return function
