"""Comparing a checkpoint's names, shapes and dtypes with those of a network."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import CheckpointError, MetanetError, brief, listed
from ._forms import adapter_of
from ._spelling import spelled

_LISTED = 10  # of each kind of difference
_NAME = 60  # characters of each name in a message
_DEEPEST = 64  # modules inside modules that a prefix may name
_COMPARED, _SEARCHED = (
    300,
    5_000,
)  # characters of names, and names, among which similar ones are looked for
_DTYPES = ("kind", "exact", "any")


class Described(NamedTuple):
    """A tensor without its data; no dtype where only a shape is known."""

    shape: torch.Size
    dtype: torch.dtype | None


def describe(expected: Mapping[str, Any]) -> dict[str, Described]:
    """Names with tensors or shapes, as descriptions."""
    if not isinstance(expected, Mapping):
        raise MetanetError(
            "expected names with tensors or shapes, such as model.state_dict(), not "
            f"{type(expected)}"
        )
    described = {}
    for name, value in expected.items():
        shape: Any = getattr(value, "shape", value)
        described[name] = Described(torch.Size(shape), getattr(value, "dtype", None))
    return described


def match(
    path: Path, names: Iterable[str], expected: Mapping[str, Any], prefix: str | None
) -> dict[str, str]:
    """Name in the network's terms -> name in the checkpoint, for all names that the prefix leaves.

    Args:
        path: for messages.
        names: the checkpoint's.
        prefix: the one to take off; ``None`` finds the one that brings most names together.

    Raises:
        CheckpointError: no name has the prefix, or several prefixes do equally well.
    """
    names = dict.fromkeys(names)
    plain = _by_prefix(path, names, expected) if prefix is None else _without(path, names, prefix)
    if all(name in plain for name in expected):
        return plain
    # Wrappers and reparametrisations inside the network: compare in a spelling that both have.
    network = {spelling: name for name, spelling in spelled(expected).items()}
    stored = {spelling: plain[name] for name, spelling in spelled(plain).items()}
    matched = {spelling: spelling for spelling in stored}
    if prefix is None:
        matched = _by_prefix(path, stored, network)
    respelled = {}
    for spelling, here in matched.items():
        respelled[network.get(spelling, spelling)] = stored[here]
    better = sum(name in respelled for name in expected) > sum(name in plain for name in expected)
    return respelled if better else plain


def _without(path: Path, names: Iterable[str], prefix: str) -> dict[str, str]:
    """The names that start with a prefix, without it."""
    stripped = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    if not stripped:
        firsts = list(dict.fromkeys(name.partition(".")[0] + "." for name in names))[:_LISTED]
        raise CheckpointError(
            f"checkpoint '{path}': no name starts with {brief(prefix)!r}, but {listed(firsts)}"
        )
    return stripped


def _by_prefix(path: Path, names: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, str]:
    """Take off or put on the one prefix that brings most names together."""
    took = Counter(start for name in names for start, stem in _splits(name) if stem in expected)
    put = Counter(start for name in expected for start, stem in _splits(name) if stem in names)
    best = max([*took.values(), *put.values()], default=0)
    # A few names that end alike make no prefix: the names as they are then show better what
    # differs.
    if best <= sum(name in expected for name in names) or 2 * best < min(len(names), len(expected)):
        return {name: name for name in names}
    taking = [start for start, count in took.items() if count == best]
    putting = [start for start, count in put.items() if count == best]
    if len(taking) + len(putting) > 1:
        ways = [f"without {start}" for start in taking] + [f"with {start}" for start in putting]
        raise CheckpointError(
            f"checkpoint '{path}' fits the network in several ways: "
            f"{listed(ways, _LISTED, join=' or ')}; name the prefix to take off by prefix="
        )
    if putting:
        return {putting[0] + name: name for name in names}
    return {name.removeprefix(taking[0]): name for name in names if name.startswith(taking[0])}


def _splits(name: str) -> Iterable[tuple[str, str]]:
    """``a.b.c`` as (``a.``, ``b.c``) and (``a.b.``, ``c``)."""
    places = [match.end() for match in islice(re.finditer(r"\.", name), _DEEPEST)]
    return [(name[:i], name[i:]) for i in places]


def check(
    found: Mapping[str, Described],
    wanted: Mapping[str, Described],
    surplus: Mapping[str, Described],
    dtypes: str,
) -> str:
    """What differs, one line each, at most ten of a kind; empty if nothing does.

    Args:
        found: the expected names that the checkpoint has.
        surplus: names of the checkpoint that are not expected.
        dtypes: ``"kind"``, ``"exact"`` or ``"any"``: see ``Checkpoint.fit``.
    """
    if dtypes not in _DTYPES:
        raise MetanetError(f"dtypes={dtypes!r}: give one of {', '.join(_DTYPES)}")
    missing = [name for name in wanted if name not in found]
    shapes = [name for name, own in found.items() if own.shape != wanted[name].shape]
    kinds = [
        name for name, own in found.items() if not _agree(own.dtype, wanted[name].dtype, dtypes)
    ]
    lines: list[str] = []
    for name in missing[:_LISTED]:
        near = _near(name, wanted[name], surplus)
        lines.append(f"  missing     {_line(name, wanted[name].shape)}{near}")
    lines += _rest(missing, "missing")
    for name in list(surplus)[:_LISTED]:
        lines.append(f"  unexpected  {_line(name, surplus[name].shape)}")
    lines += _rest(surplus, "unexpected")
    lines += _adapters(surplus)
    for name in shapes[:_LISTED]:
        expected = brief(tuple(wanted[name].shape), 60)
        lines.append(f"  shape       {_line(name, found[name].shape, 'is ')}, expected {expected}")
    lines += _rest(shapes, "of other shapes")
    for name in kinds[:_LISTED]:
        differs = f"is {found[name].dtype}, expected {wanted[name].dtype}"
        lines.append(f"  dtype       {brief(name, _NAME)} {differs}")
    lines += _rest(kinds, "of other dtypes")
    if missing and not found:
        lines.append(
            "no name is the network's: is this the architecture? Some libraries rename what they "
            "load"
        )
    return "\n".join(lines)


def _rest(names: Iterable[str], what: str) -> list[str]:
    hidden = len(list(names)) - _LISTED
    return [f"  ... and {hidden} more {what}"] if hidden > 0 else []


def _adapters(surplus: Iterable[str]) -> list[str]:
    """What to do about the factors of an adapter, whose weights are then no whole network."""
    word = next(filter(None, map(adapter_of, surplus)), None)
    advice = (
        "they change what the network computes: merge them into it first, with PEFT by "
        "model.merge_and_unload()"
    )
    return [] if word is None else [f"  some of these are of an adapter ({word}); {advice}"]


def _near(name: str, wanted: Described, surplus: Mapping[str, Described]) -> str:
    """The unexpected name that may be meant: a similar one, of the same shape if there is one."""
    if len(name) > _COMPARED:
        return ""
    names = [other for other in islice(surplus, _SEARCHED) if len(other) <= _COMPARED]
    same = [other for other in names if surplus[other].shape == wanted.shape]
    near = difflib.get_close_matches(name, same, 1) or difflib.get_close_matches(name, names, 1)
    return f"; near: {_line(near[0], surplus[near[0]].shape)}" if near else ""


def _line(name: str, shape: torch.Size, verb: str = "") -> str:
    """A name and a shape for one line of ten; both may be of any length."""
    return f"{brief(name, _NAME)} {verb}{brief(tuple(shape), 60)}"


def _agree(one: torch.dtype | None, other: torch.dtype | None, how: str) -> bool:
    if how == "any" or one is None or other is None:
        return True
    return one is other if how == "exact" else _kind(one) == _kind(other)


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point or dtype.is_complex:
        return "floating" if dtype.is_floating_point else "complex"
    return "bool" if dtype is torch.bool else "integer"
