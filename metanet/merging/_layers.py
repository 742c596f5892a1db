"""Which layer a tensor belongs to, by its name: for options that change with depth, and for slices
of layers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import MetanetError

_NUMBERED = re.compile(r"(?P<stack>(?:[^.]+\.)*?)(?P<number>\d+)\.(?P<rest>.+)")
_FIRST = ("embed", "wte", "wpe", "stem", "patch", "cls_token", "pos_", "position")


@dataclass(frozen=True)
class Place:
    """A tensor's layer: ``stack`` is what its layers have in common, ``model.layers.``."""

    stack: str
    number: int
    rest: str


def place_of(name: str) -> Place | None:
    """The outermost numbered layer that a name stands in; ``None`` outside of all."""
    found = _NUMBERED.fullmatch(name)
    return None if found is None else Place(found["stack"], int(found["number"]), found["rest"])


def main_stack(names: Iterable[str]) -> str:
    """The stack with most layers.

    Raises:
        MetanetError: no name has a numbered layer, or two stacks have as many (an encoder and a
            decoder).
    """
    layers: dict[str, set[int]] = {}
    for name in names:
        if (place := place_of(name)) is not None:
            layers.setdefault(place.stack, set()).add(place.number)
    if not layers:
        raise MetanetError(
            "no name has a numbered layer (model.layers.0.…): there is nothing to slice"
        )
    most = max(len(numbers) for numbers in layers.values())
    best = [stack for stack, numbers in layers.items() if len(numbers) == most]
    if len(best) > 1:
        raise MetanetError(
            f"several stacks have {most} layers: {', '.join(best)}; slices need one stack of layers"
        )
    return best[0]


def depths(names: Iterable[str]) -> dict[str, float]:
    """How deep every tensor lies: 0 for the first layer of its stack and what comes before it, 1
    for the last.

    Stacks that differ by a number only (``layer1.``, ``layer2.``) follow one another; others (an
    encoder and a decoder) count on their own. Names outside all stacks count as before them if they
    say so (embeddings), else as behind.
    """
    names = list(names)
    places = {name: place_of(name) for name in names}
    stacks: dict[str, set[tuple[int, ...]]] = {}
    for place in places.values():
        if place is not None:
            stacks.setdefault(_family(place), set()).add(_order(place))
    ranks = {
        family: {order: k for k, order in enumerate(sorted(layers))}
        for family, layers in stacks.items()
    }
    out = {}
    for name, place in places.items():
        if place is None:
            out[name] = 0.0 if is_first(name) else 1.0
        else:
            rank = ranks[_family(place)]
            out[name] = rank[_order(place)] / max(1, len(rank) - 1)
    return out


def _family(place: Place) -> str:
    return re.sub(r"\d+", "#", place.stack)


def _order(place: Place) -> tuple[int, ...]:
    return (*map(int, re.findall(r"\d+", place.stack)), place.number)


def is_first(name: str) -> bool:
    """Whether a tensor outside all layers comes before them: embeddings, positions, stems."""
    return any(word in name.lower() for word in _FIRST)


def sliced(
    names: Iterable[str], slices: list[Mapping[int, tuple[int, int]]]
) -> dict[str, dict[int, str]]:
    """Name of the result -> model -> name there, for a result whose layers are those of the slices,
    one after another.

    What stands outside the layers comes from the models of the first slice (embeddings) and of the
    last (norm, head).

    Args:
        names: of every model.
        slices: each: model -> first layer and the one behind the last; all models of a slice have
            as many layers.

    Raises:
        MetanetError: a slice is empty, or has layers that there are not.
    """
    names = list(names)
    stack = main_stack(names)
    inside = {n: p for n in names if (p := place_of(n)) is not None and p.stack == stack}
    known = {p.number for p in inside.values()}
    out: dict[str, dict[int, str]] = {}
    offset = 0
    for number, each in enumerate(slices):
        lengths = {stop - start for start, stop in each.values()}
        if len(lengths) != 1 or min(lengths) < 1:
            raise MetanetError(
                f"slice {number + 1}, {dict(each)}: every model needs the same number of layers, 1 or more"
            )
        wanted = {layer for start, stop in each.values() for layer in range(start, stop)}
        if missing := sorted(wanted - known):
            raise MetanetError(
                f"slice {number + 1}, {dict(each)}: there is no layer {missing[0]}; "
                f"{stack} has the layers {min(known)} to {max(known)}"
            )
        for name, place in inside.items():
            for model, (start, stop) in each.items():
                if start <= place.number < stop:
                    made = f"{stack}{offset + place.number - start}.{place.rest}"
                    out.setdefault(made, {})[model] = name
        offset += lengths.pop()
    outside = {
        n: dict.fromkeys(slices[0 if is_first(n) else -1], n) for n in names if n not in inside
    }
    first = {n: models for n, models in outside.items() if is_first(n)}
    return {**first, **out, **{n: models for n, models in outside.items() if n not in first}}
