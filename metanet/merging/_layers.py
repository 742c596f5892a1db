"""Which layer a tensor belongs to, by its name: for options that change with depth, and for slices
of layers."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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
    match = _NUMBERED.fullmatch(name)
    return None if match is None else Place(match["stack"], int(match["number"]), match["rest"])


def main_stack(names: Iterable[str]) -> str:
    """The stack with most layers.

    Raises:
        MetanetError: no name has a numbered layer, or two stacks have as many (an encoder and a
            decoder).
    """
    layers: dict[str, set[int]] = defaultdict(set)
    for place in map(place_of, names):
        if place is not None:
            layers[place.stack].add(place.number)
    if not layers:
        raise MetanetError(
            "no name has a numbered layer (model.layers.0.…): there is nothing to slice"
        )
    most = max(len(numbers) for numbers in layers.values())
    deepest = [stack for stack, numbers in layers.items() if len(numbers) == most]
    if len(deepest) > 1:
        raise MetanetError(
            f"several stacks have {most} layers: {', '.join(deepest)}; slices need one stack of "
            "layers"
        )
    return deepest[0]


def depths(names: Iterable[str]) -> dict[str, float]:
    """How deep every tensor lies: 0 for the first layer of its stack and what comes before it, 1
    for the last.

    Stacks that differ by a number only (``layer1.``, ``layer2.``) follow one another; others (an
    encoder and a decoder) count on their own. Names outside all stacks count as before them if they
    say so (embeddings), else as behind.

    >>> depths(["embed.w", "layer1.0.w", "layer1.1.w", "layer2.0.w", "head.w"])
    {'embed.w': 0.0, 'layer1.0.w': 0.0, 'layer1.1.w': 0.5, 'layer2.0.w': 1.0, 'head.w': 1.0}
    """
    places = {name: place_of(name) for name in names}
    orders: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for place in places.values():
        if place is not None:
            orders[_family(place)].add(_order(place))
    ranks = {family: _ranks(layers) for family, layers in orders.items()}
    out = {}
    for name, place in places.items():
        if place is None:
            out[name] = 0.0 if is_first(name) else 1.0
            continue
        rank = ranks[_family(place)]
        out[name] = rank[_order(place)] / max(1, len(rank) - 1)
    return out


def _ranks(layers: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """0, 1, 2, ... for the layers of a family, in their order."""
    return {order: number for number, order in enumerate(sorted(layers))}


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
    inside = {name: place for name in names if (place := _within(name, stack)) is not None}
    layers = {place.number for place in inside.values()}
    result: dict[str, dict[int, str]] = defaultdict(dict)
    offset = 0
    for number, spans in enumerate(slices, 1):
        length = _length(number, spans, stack, layers)
        for name, place in inside.items():
            for model, (start, stop) in spans.items():
                if start <= place.number < stop:
                    layer = offset + place.number - start
                    result[f"{stack}{layer}.{place.rest}"][model] = name
        offset += length
    before: dict[str, dict[int, str]] = {}
    behind: dict[str, dict[int, str]] = {}
    for name in names:
        if name in inside:
            continue
        if is_first(name):
            before[name] = dict.fromkeys(slices[0], name)
        else:
            behind[name] = dict.fromkeys(slices[-1], name)
    return {**before, **result, **behind}


def _within(name: str, stack: str) -> Place | None:
    """Where a name stands in a stack; ``None`` outside of it."""
    place = place_of(name)
    return place if place is not None and place.stack == stack else None


def _length(
    number: int, spans: Mapping[int, tuple[int, int]], stack: str, layers: Collection[int]
) -> int:
    """How many layers a slice has, the same of each model."""
    lengths = {stop - start for start, stop in spans.values()}
    if len(lengths) != 1 or min(lengths) < 1:
        raise MetanetError(
            f"slice {number}, {dict(spans)}: every model needs the same number of layers, 1 or more"
        )
    asked = {layer for start, stop in spans.values() for layer in range(start, stop)}
    missing = sorted(asked.difference(layers))
    if missing:
        raise MetanetError(
            f"slice {number}, {dict(spans)}: there is no layer {missing[0]}; "
            f"{stack} has the layers {min(layers)} to {max(layers)}"
        )
    return lengths.pop()
