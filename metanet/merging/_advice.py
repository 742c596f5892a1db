"""What to do where checkpoints differ: advice with the exact words to type."""

import json
from collections.abc import Iterable, Iterator, Mapping
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


def on_extra_names(given: Mapping[int | str, Checkpoint]) -> str:
    """How to merge checkpoints of which some store names that others lack; empty where they have
    little in common.

    Args:
        given: all that are merged, by what ``take`` calls them.
    """
    holders: dict[str, int | str] = {}
    for label, checkpoint in given.items():
        for name in checkpoint:
            holders.setdefault(name, label)
    in_some = {
        name: label
        for name, label in holders.items()
        if not all(name in checkpoint for checkpoint in given.values())
    }
    if not in_some or 2 * len(in_some) > len(holders):
        return ""
    takes = {pattern: {"take": label} for pattern, label in _patterns(in_some, holders)}
    first = next(iter(in_some))
    is_derived = first.endswith(_DERIVED)
    derived = " (a table that the network computes from its configuration)" if is_derived else ""
    shown = dict(list(takes.items())[:_LISTED])
    likewise = f", and likewise {len(takes) - _LISTED} more" if len(takes) > _LISTED else ""
    return (
        f"\nOnly some of them store {first}{derived}. Take such tensors from one that has them: "
        f"{overrides_text(shown)}{likewise}."
    )


def _patterns(
    in_some: Mapping[str, int | str], names: Iterable[str]
) -> Iterator[tuple[str, int | str]]:
    """The shortest patterns that match all of some names and none of the others.

    ``layers.0.rope.inv_freq`` and ``layers.1.rope.inv_freq``, both of model 1: ``*inv_freq``, 1.
    """
    open_names = dict(in_some)
    while open_names:
        name, label = next(iter(open_names.items()))
        pattern, matched = name, [name]  # names may have the characters of patterns in them
        for candidate in _candidates(name):
            fitting = [n for n in names if fnmatchcase(n, candidate)]
            if name in fitting and all(in_some.get(n) == label for n in fitting):
                pattern, matched = candidate, fitting
                break
        yield pattern, label
        open_names = {n: k for n, k in open_names.items() if n not in matched}


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
