"""What a user says of the inputs of a network."""

from typing import Any

from ..errors import MetanetError


def check_sample_shape(input_shape: Any) -> list[int]:
    """``input_shape=`` as it came from the command line, if it is the shape of one sample.

    Args:
        input_shape: expected is a list of positive integers, ``[1, 28, 28]``.

    Raises:
        MetanetError: it is something else.
    """
    is_shape = isinstance(input_shape, list) and all(
        isinstance(size, int) and size > 0 for size in input_shape
    )
    if not is_shape:
        raise MetanetError(
            f"input_shape={input_shape} is no shape of one sample; expected e.g. [1,28,28] or [16]"
        )
    return input_shape
