"""The type checker of the tests, which jaxtyping's import hook puts on every function of the package."""

import warnings
from collections.abc import Callable, Mapping

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintException, BeartypeDecorHintPep585DeprecationWarning
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
        with warnings.catch_warnings():  # of old spellings of hints in classes of other packages
            warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
            return beartype(conf=_CONF)(function)
    except BeartypeDecorHintException:
        UNCHECKED.add(f"{function.__module__}.{function.__qualname__}")
        return function
