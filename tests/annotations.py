"""The type checker of the tests: beartype, told by jaxtyping's import hook for every function of the package."""

from collections.abc import Callable, Mapping

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintException
from torch import Tensor

# beartype would look at one of the values, and a lazy checkpoint would read it.
_CONF = BeartypeConf(hint_overrides=FrozenDict({Mapping[str, Tensor]: Mapping}))

UNCHECKED: set[str] = set()
"""Functions with a hint that beartype can't check."""


def checked(function: Callable) -> Callable:
    """The function, its annotations checked at every call."""
    try:
        return beartype(conf=_CONF)(function)
    except BeartypeDecorHintException:
        UNCHECKED.add(f"{function.__module__}.{function.__qualname__}")
        return function
