"""What a value of the configuration may be: annotations read as tests of a value, and as words for
a message.

>>> fits("ten", int | None), described(int | None)
(False, 'a whole number, or null')
>>> fits(1.5, Annotated[float, Range(0, 1)]), described(Annotated[float, Range(0, 1)])
(False, 'a number from 0 to 1')
"""

import collections.abc
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for ``Annotated``; ``above``: the lower one itself is left out."""

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False

    def holds(self, value: Any) -> bool:
        if not isinstance(value, int | float):
            return True
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low, high = f"{self.low:.10g}", f"{self.high:.10g}"
        if self.high == float("inf"):
            return f"above {low}" if self.above else f"{low} or more"
        return f"above {low}, up to {high}" if self.above else f"from {low} to {high}"


@dataclass(frozen=True)
class Filled:
    """For ``Annotated``: a list that has something in it."""

    def holds(self, value: Any) -> bool:
        return len(value) > 0


_PLAIN = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null",
    Path: "a path", dict: "{KEY: VALUE}", list: "a list",
}  # fmt: skip
_LISTS = (list, tuple, Sequence, Iterable, set, frozenset)
_DICTS = (dict, Mapping)
_UNIONS = (Union, types.UnionType)


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value (of YAML) is of a kind; of what can't be judged, every value is."""
    origin = get_origin(kind)
    parts = get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return True
    if isinstance(value, Mapping) and "_target_" in value:
        return True  # what is built of it is another matter
    if origin is Annotated:
        kind, *marks = parts
        return fits(value, kind) and all(mark.holds(value) for mark in marks)
    if origin in _UNIONS:
        return _fits_one(value, _judged(parts))
    if origin is Literal:
        return (type(value), value) in [(type(part), part) for part in parts]
    if (origin or kind) in _LISTS:
        return _is_list(value, [part for part in parts if part is not Ellipsis])
    if (origin or kind) in _DICTS:
        return isinstance(value, Mapping)
    return _is_plain(value, kind)


def _fits_one(value: Any, kinds: Iterable[Any]) -> bool:
    return any(fits(value, kind) for kind in kinds)


def described(kind: Any) -> str:
    """What is allowed, in words."""
    origin = get_origin(kind)
    parts = get_args(kind)
    if origin is Annotated:
        bounds = [str(mark) for mark in parts[1:] if isinstance(mark, Range)]
        number = " ".join(["number", *bounds])
        return re.sub(r"number\b", number, described(parts[0]), count=1)
    if origin in _UNIONS:
        kinds = _judged(parts)
        if float in kinds:  # "a number" says it of whole ones, too
            kinds = [part for part in kinds if part is not int]
        words = dict.fromkeys(map(described, kinds))
        return ", or ".join(sorted(words, key=lambda word: word == "null"))
    if origin is Literal:
        return ", ".join(map(str, parts))
    if (origin or kind) in _LISTS:
        return f"a list, each {described(parts[0])}" if parts and parts[0] is not Any else "a list"
    if (origin or kind) in _DICTS:
        return _PLAIN[dict]
    return _PLAIN.get(kind, getattr(kind, "__name__", str(kind)))


def asked(kind: Any) -> str:
    """What to do: ``give a whole number``, ``choose from a, b``."""
    parts = _judged(get_args(kind)) if get_origin(kind) in _UNIONS else [kind]
    is_choice = any(get_origin(part) is Literal for part in parts)
    return f"{'choose from' if is_choice else 'give'} {described(kind)}"


def _judged(parts: Iterable[Any]) -> list[Any]:
    """The members of a union that YAML can write; ``Any`` where it can write none of them but null.

    ``float | Tensor`` is a number for whoever writes a configuration.
    """
    plain = [part for part in parts if not _is_foreign(part)]
    return plain if any(part is not type(None) for part in plain) else [Any]


def _is_list(value: Any, parts: Sequence[Any]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return not parts or all(_fits_one(item, parts) for item in value)


def _is_plain(value: Any, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind in (bool, object)
    if kind is float:
        return isinstance(value, int | float)
    if kind is type(None) or kind is None:
        return value is None
    if kind in (int, str):
        return isinstance(value, kind)
    return isinstance(value, str) if kind is Path else _is_foreign(kind)


def _is_foreign(kind: Any) -> bool:
    """A class of which nothing in YAML is an instance: a value alone can't tell whether its target
    can use it."""
    is_class = get_origin(kind) in (None, collections.abc.Callable) and kind is not Any
    return is_class and kind not in (*_PLAIN, *_LISTS, *_DICTS)
