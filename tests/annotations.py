"""The annotations of the package, checked while the tests run: shapes and dtypes by jaxtyping, the rest by beartype."""

from collections.abc import Callable

from beartype import beartype
from beartype.roar import BeartypeDecorHintException

UNCHECKED: list[str] = []
"""Functions with a hint that beartype doesn't know."""


def checked(function: Callable) -> Callable:
    """The function, its annotations checked at every call."""
    try:
        return beartype(function)
    except BeartypeDecorHintException:
        UNCHECKED.append(f"{function.__module__}.{function.__qualname__}")
        return function
