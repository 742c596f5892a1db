"""Functions of one's own are looked at as they are registered, not in the midst of a run."""

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import MetanetError


def check_takes(function: Callable[..., Any], names: tuple[str, ...], what: str) -> None:
    """Refuse a function that can't be called with as many arguments in their places.

    Args:
        names: of the arguments, for the message.
        what: what to call it, ``"loss 'hinge'"``.

    Raises:
        MetanetError: it takes fewer or needs more; the message names its file.
    """
    takes = inspect.signature(function)
    try:
        takes.bind(*names)
    except TypeError:
        name = getattr(function, "__name__", type(function).__name__)
        file = getattr(getattr(function, "__code__", None), "co_filename", function.__module__)
        raise MetanetError(
            f"{what} in {file}: {name} takes {takes}; it must take ({', '.join(names)})"
        ) from None
