"""What to do where checkpoints differ: advice with the exact words to type."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from ..checkpoints import Checkpoint
from ._layers import place_of

_DERIVED = (
    "inv_freq",
    "position_ids",
    "masked_bias",
    "attn.bias",
    "cos_cached",
    "sin_cached",
    "position_index",
)
"""How the names of tables end that networks compute from their configuration; some library versions
store them."""
_LISTED = 4


def overrides_text(overrides: Mapping[str, Mapping[str, int | str]]) -> str:
    """Overrides as Python and as the command line take them.

    >>> overrides_text({"*inv_freq": {"take": 1}})
    'overrides={"*inv_freq": {"take": 1}} (command line: \\'overrides={"*inv_freq": {take: 1}}\\')'
    """
    typed = ", ".join(
        f'"{pattern}": {{{", ".join(f"{key}: {value}" for key, value in options.items())}}}'
        for pattern, options in overrides.items()
    )
    return f"overrides={json.dumps(overrides, ensure_ascii=False)} (command line: 'overrides={{{typed}}}')"


def on_extra_names(given: Sequence[Checkpoint], labels: Sequence[int | str]) -> str:
    """How to merge checkpoints of which some store names that others lack; empty where they have
    little in common.

    Args:
        given: all that are merged.
        labels: what ``take`` calls each of them.
    """
    names = dict.fromkeys(name for each in given for name in each)
    holders = {
        name: next(k for k, each in zip(labels, given, strict=True) if name in each)
        for name in names
    }
    some = {name: holders[name] for name in names if not all(name in each for each in given)}
    if not some or 2 * len(some) > len(names):
        return ""
    takes = {pattern: {"take": label} for pattern, label in _patterns(some, names)}
    first = next(iter(some))
    derived = (
        " (a table that the network computes from its configuration)"
        if first.endswith(_DERIVED)
        else ""
    )
    shown = dict(list(takes.items())[:_LISTED])
    more = f", and likewise {len(takes) - _LISTED} more" if len(takes) > _LISTED else ""
    return (
        f"\nOnly some of them store {first}{derived}. Take such tensors from one that has them: "
        f"{overrides_text(shown)}{more}."
    )


def _patterns(
    some: Mapping[str, int | str], names: Iterable[str]
) -> Iterator[tuple[str, int | str]]:
    """The shortest patterns that match all of some names, and none of the others, with the one that
    has them."""
    left = dict(some)
    while left:
        name, label = next(iter(left.items()))
        for pattern in _candidates(name):
            matched = [n for n in names if fnmatchcase(n, pattern)]
            if name in matched and all(some.get(n) == label for n in matched):
                yield pattern, label
                left = {n: k for n, k in left.items() if n not in matched}
                break
        else:  # a name with the characters of patterns in it
            yield name, label
            del left[name]


def _candidates(name: str) -> list[str]:
    """From the shortest on: ``layers.0.attn.bias`` -> ``*bias``, ``*.bias``, ``*.attn.bias``, ...,
    itself."""
    place = place_of(name)
    if place is None:
        return [name]
    parts = place.rest.split(".")
    return [
        f"*{parts[-1]}",
        *(f"*.{'.'.join(parts[k:])}" for k in range(len(parts) - 1, -1, -1)),
        name,
    ]
