"""JSON that comes from files: read within bounds, checked against a declared shape, refused in one short message.

What a file says is data, and whoever wrote it may not wish us well. So a format is declared once, as a pydantic model,
and nothing reaches into parsed JSON by key before :func:`validated` has seen it:

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
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import MetanetError

LARGEST = 256 * 2**20
"""Bytes of JSON that are read unless a format says otherwise."""

_SHOWN = 6  # mistakes that a message lists
_VALUE = 60  # characters of a value that a message quotes
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Shape = TypeVar("Shape")


class Document(BaseModel):
    """The declared shape of a JSON object: no conversions ("3" is no 3), no keys that nobody declared.

    Arrays are declared as lists: there are no tuples in JSON. A format that later versions may extend sets
    ``model_config = ConfigDict(extra="ignore")``.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def read_json(
    path: str | os.PathLike, *, largest: int = LARGEST, error: type[MetanetError] = MetanetError, unique: bool = False
) -> Any:
    """The JSON in a regular file, parsed but not checked: pass it to :func:`validated`.

    Args:
        path: the file.
        largest: more bytes than this are refused unread.
        error: the class of what is raised.
        unique: refuse objects that give a key twice.

    Raises:
        MetanetError: no regular file (a pipe, a device, a folder), too large, unreadable, or no JSON.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a pipe would block, a device never end
            there = "it is no regular file" if path.exists() else "there is no such file"
            raise error(f"can't read '{path}': {there}")
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as failure:
        raise error(f"can't read '{path}': {failure.strerror}") from failure
    if len(content) > largest:
        raise error(f"'{path}' is larger than {largest} bytes, which no file of this kind is")
    return parse_json(content, f"'{path}'", error=error, unique=unique)


def parse_json(
    content: bytes, place: str, *, error: type[MetanetError] = MetanetError, unique: bool = False, nan: bool = False
) -> Any:
    """JSON as the standard has it: UTF-8 without a mark, no NaN, no half characters, no nesting without end.

    Args:
        content: the bytes.
        place: how messages name it.
        error: the class of what is raised.
        unique: refuse objects that give a key twice.
        nan: read NaN and Infinity, which Python writes; for measurements.

    Raises:
        MetanetError: it is none of that.
    """
    pairs = _distinct if unique else None
    try:
        text = content.decode("utf-8")
        value = json.loads(text, parse_constant=None if nan else _no_constant, object_pairs_hook=pairs)
        if _SURROGATE.search(content):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise error(f"{place} is no JSON that metanet reads: it is nested too deep") from None
    except ValueError as failure:  # JSONDecodeError, UnicodeError, integers of thousands of digits
        raise error(f"{place} is damaged or no JSON: {_brief(failure)}") from None
    return value


def validated(
    shape: type[Shape] | TypeAdapter[Shape], value: Any, place: str, *, error: type[MetanetError] = MetanetError
) -> Shape:
    """``value`` as an instance of ``shape``, or one message with what does not fit.

    Args:
        shape: a :class:`Document`, any type that pydantic knows (``dict[str, int]``), or a ``TypeAdapter``.
        value: parsed JSON.
        place: how the message names where it comes from.
        error: the class of what is raised.

    Raises:
        MetanetError: it does not fit; lists the first mistakes with their place, at most some 1,000 characters.
    """
    adapter = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
    try:
        return adapter.validate_python(value)
    except ValidationError as failure:
        mistakes = failure.errors(include_url=False, include_context=False)
    except RecursionError:
        raise error(f"{place} is no file that metanet reads: it is nested too deep") from None
    lines = [f"  {_where(m['loc'])}: {m['msg']}, got {_brief(repr(m['input']))}" for m in mistakes[:_SHOWN]]
    if len(mistakes) > _SHOWN:
        lines.append(f"  and {len(mistakes) - _SHOWN} more")
    raise error("\n".join([f"{place} is damaged or of another format:", *lines]))


def _where(location: tuple[int | str, ...]) -> str:
    """('files', 'a.json', 0) -> files.a.json[0]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_brief(part)}" for part in location)
    return text.removeprefix(".") or "the whole"


def _brief(given: object) -> str:
    text = str(given)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}..."


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name!r} stands there twice")
            seen.add(name)
    return found
