"""The exceptions that metanet raises on purpose, and the words of files made short enough for their
messages."""

from collections.abc import Iterable
from itertools import islice

LONGEST = 2_000
"""Characters of a message."""

_NAME = 120  # characters of one name in a message


def brief(value: object, longest: int = _NAME) -> str:
    """A name or value that a file brought, for a message: its start and its end if it is long.

    >>> brief("a" * 5_000, 20)
    'aaaaaaaaaaa...aaaaaa'
    """
    text = str(value)
    if len(text) <= longest:
        return text
    end = max(0, (longest - 3) * 2 // 5)
    return f"{text[: longest - 3 - end]}...{text[len(text) - end :]}"


def listed(names: Iterable[object], most: int = 10, join: str = ", ") -> str:
    """Names for a message: the first few, each of bounded length, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    others = f" and {len(names) - most:,} more" if len(names) > most else ""
    return join.join(brief(name) for name in islice(names, most)) + others


class MetanetError(Exception):
    """Bad input, explained: what was given, where, what is allowed, and what to do.

    Every error a user can cause is one of these (or a subclass), so that commands print the message
    without a traceback while programming errors keep theirs. A message has 2,000 characters at
    most, whatever names a file brings, and can be printed everywhere: half characters are shown as
    their codes.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_printable(each) if isinstance(each, str) else each for each in args))


class CheckpointError(MetanetError):
    """A checkpoint is damaged, unsafe to read, or of another architecture."""


class TraceError(MetanetError):
    """A network could not be recorded.

    Inputs are missing, its forward raises, or no output is a tensor.
    """


def _printable(text: str) -> str:
    return brief(brief(text, LONGEST).encode("utf-8", "backslashreplace").decode("utf-8"), LONGEST)


class UntoldNeuronsWarning(UserWarning):
    """An alignment leaves groups of neurons as they are.

    Nothing tells their neurons apart.
    """
