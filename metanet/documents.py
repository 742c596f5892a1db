"""JSON that comes from files: read within bounds, checked against a declared shape, refused in one
short message.

What a file says is data, and whoever wrote it may not wish us well. So a format is declared once,
as a pydantic model, and nothing reaches into parsed JSON by key before :func:`validated` has seen
it:

>>> class Entry(Document):
...     name: str
...     shape: list[int]
>>> validated(Entry, {"name": "a.weight", "shape": [2, 3]}, "index.json").shape
[2, 3]
>>> validated(Entry, {"name": "a.weight", "shape": [2, "x"]}, "index.json")
Traceback (most recent call last):
metanet.errors.MetanetError: index.json is damaged or of another format:
  shape[1]: Input should be a valid integer, got 'x'
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import MetanetError, brief

LARGEST = 256 * 2**20
"""Bytes of JSON that are read unless a format says otherwise."""

LARGEST_YAML = 2**20
"""Bytes of YAML that are read: configurations are short, and its parser is slow."""

_SHOWN = 6  # mistakes that a message lists
_VALUE = 60  # characters of a value that a message quotes
_MANY = 10_000  # mistakes of which none is listed: it would take more memory than the file
_INSTANCE = re.compile(r" or instance of \w+")  # no value of a file is one
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Shape = TypeVar("Shape")


class Document(BaseModel):
    """The declared shape of a JSON object.

    No conversions ("3" is no 3), no keys that nobody declared.

    Arrays are declared as lists: there are no tuples in JSON. A format that later versions may
    extend sets ``model_config = ConfigDict(extra="ignore")``.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def check_regular(path: str | os.PathLike, *, error: type[MetanetError] = MetanetError) -> None:
    """Refuse to open anything but a regular file: a pipe would block, a device never end.

    Links are followed: those of a cache are files, one to /dev/zero is not.

    Raises:
        MetanetError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    path = Path(path)
    try:
        regular = path.is_file()
        there = path.exists()
    except (OSError, ValueError):  # too long a name, a NUL in it
        regular = there = False
    if not regular:
        what = ("a folder" if path.is_dir() else "no regular file") if there else None
        raise error(
            f"can't read '{path}': " + (f"it is {what}" if what else "there is no such file")
        )


def read_bytes(
    path: str | os.PathLike, *, largest: int = LARGEST, error: type[MetanetError] = MetanetError
) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        largest: more bytes than this are refused unread.
        error: the class of what is raised.

    Raises:
        MetanetError: no regular file (a pipe, a device, a folder), too large, or unreadable.
    """
    check_regular(path, error=error)
    try:
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as failure:
        raise error(f"can't read '{path}': {failure.strerror}") from failure
    if len(content) > largest:
        raise error(f"'{path}' is larger than {largest:,} bytes, which no file of this kind is")
    return content


def read_json(
    path: str | os.PathLike, *, largest: int = LARGEST, error: type[MetanetError] = MetanetError,
    unique: bool = False, nan: bool = False,
) -> Any:  # fmt: skip
    """The JSON in a regular file, parsed but not checked: pass it to :func:`validated`.

    Args:
        path: the file.
        largest: more bytes than this are refused unread.
        error: the class of what is raised.
        unique: refuse objects that give a key twice.
        nan: read NaN and Infinity, which Python programs write.

    Raises:
        MetanetError: no regular file (a pipe, a device, a folder), too large, unreadable, or no
            JSON.
    """
    content = read_bytes(path, largest=largest, error=error)
    return parse_json(content, f"'{path}'", error=error, unique=unique, nan=nan)


def parse_json(
    content: bytes | str, place: str, *, error: type[MetanetError] = MetanetError, unique: bool = False,
    nan: bool = False,
) -> Any:  # fmt: skip
    """JSON as the standard has it.

    UTF-8 without a mark, no NaN, no half characters, no nesting without end.

    Args:
        content: the bytes, or what they say.
        place: how messages name it.
        error: the class of what is raised.
        unique: refuse objects that give a key twice.
        nan: read NaN and Infinity, which Python programs write.

    Raises:
        MetanetError: it is none of that.
    """
    options: dict[str, Any] = {"object_pairs_hook": _distinct} if unique else {}
    if not nan:
        options |= {"parse_constant": _no_constant, "parse_float": _finite}
    try:
        content = content.encode("utf-8") if isinstance(content, str) else content
        if b"-0" in content:
            options["parse_int"] = _integer
        value = json.loads(content.decode("utf-8"), **options)
        if _SURROGATE.search(content):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise error(f"{place} is no JSON that metanet reads: it is nested too deep") from None
    except ValueError as failure:  # JSONDecodeError, UnicodeError, integers of thousands of digits
        raise error(f"{place} is damaged or no JSON: {brief(failure)}") from None
    return value


def read_yaml(
    path: str | os.PathLike,
    *,
    largest: int = LARGEST_YAML,
    error: type[MetanetError] = MetanetError,
) -> Any:
    """The YAML in a regular file, plain values only.

    It is parsed but not checked: pass it to :func:`validated`.

    Raises:
        MetanetError: no regular file (a pipe, a device, a folder), too large, unreadable, or no
            YAML.
    """
    import yaml

    content = read_bytes(path, largest=largest, error=error)
    try:
        return yaml.safe_load(content.decode("utf-8"))
    except RecursionError:
        raise error(f"'{path}' is no YAML that metanet reads: it is nested too deep") from None
    # Its constructors pass on what int(), float() and datetime make of a value.
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        OverflowError,
        IndexError,
    ) as failure:
        raise error(f"'{path}' is damaged or no YAML: {brief(failure)}") from None


def validated(
    shape: type[Shape] | TypeAdapter[Shape],
    value: Any,
    place: str,
    *,
    error: type[MetanetError] = MetanetError,
) -> Shape:
    """``value`` as an instance of ``shape``, or one message with what does not fit.

    Args:
        shape: a :class:`Document`, any type that pydantic knows (``dict[str, int]``), or a
            ``TypeAdapter``.
        value: parsed JSON.
        place: how the message names where it comes from.
        error: the class of what is raised.

    Raises:
        MetanetError: it does not fit; lists the first mistakes with their place, at most some 1,000
            characters.
    """
    adapter = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
    try:
        return adapter.validate_python(value)
    except ValidationError as failure:
        if failure.error_count() > _MANY:
            raise error(
                f"{place} is damaged or of another format: it has {failure.error_count():,} mistakes"
            ) from None
        mistakes = failure.errors(include_url=False, include_context=False)
    except RecursionError:
        raise error(f"{place} is no file that metanet reads: it is nested too deep") from None
    lines = [
        f"  {_where(m['loc'])}: {_INSTANCE.sub('', m['msg'])}, got {_quoted(m['input'])}"
        for m in mistakes[:_SHOWN]
    ]
    if len(mistakes) > _SHOWN:
        lines.append(f"  and {len(mistakes) - _SHOWN} more")
    raise error("\n".join([f"{place} is damaged or of another format:", *lines]))


def _where(location: tuple[int | str, ...]) -> str:
    """('files', 'a.json', 0) -> files.a.json[0]."""
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{brief(part, _VALUE)}" for part in location
    )
    return brief(text.removeprefix("."), 3 * _VALUE) or "the whole"


def _quoted(value: Any) -> str:
    """A value for a message; of what is large only the kind, since writing it out takes as much
    again."""
    if isinstance(value, (list, dict)) and len(value) > _VALUE:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    if isinstance(value, str):
        return repr(brief(value, _VALUE))
    try:
        return brief(repr(value), _VALUE)
    except (RecursionError, ValueError):  # a number of too many digits for text
        return type(value).__name__


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {brief(text, _VALUE)} is out of range")
    return number


def _integer(text: str) -> int | float:
    """-0 is no integer, as other programs have it."""
    return -0.0 if text == "-0" else int(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    distinct = dict(pairs)
    if len(distinct) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {brief(name, _VALUE)!r} stands there twice")
            seen.add(name)
    return distinct
