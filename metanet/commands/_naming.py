"""Between the names of a file and those of the network."""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..sources import in_memory, on_disk


def as_stored(
    result: Checkpoint, fitted: Checkpoint, stored: Checkpoint, model: nn.Module
) -> tuple[Checkpoint, list[str]]:
    """A checkpoint of a network by the names of a file; what the file has besides the network stays
    as it is there.

    Args:
        result: by the names of ``model``, which may have more or fewer layers than ``model``.
        fitted: a checkpoint of ``model``, by its names.
        stored: the same, by the names of its file.
        model: the network.

    Returns:
        The checkpoint, and the names that are none of the network's.
    """
    if dict(result.shapes) == dict(fitted.shapes):
        back = on_disk(result, model, stored, cast=False)
        return back, list(back.skipped)
    # Other layers or widths.
    if in_memory(stored, model) is not stored:
        return result, []  # transformers loads the module's own layout as well
    by_source = {source: name for name, source in stored.sources.items()}
    network_name = {by_source[fitted.sources[name]]: name for name in reversed(list(fitted))}
    others = [name for name in stored if name not in network_name]
    named = _named_as(result, fitted, network_name)
    return _with_others(result.select(named), stored, others), others


def _named_as(
    result: Checkpoint, fitted: Checkpoint, network_name: Mapping[str, str]
) -> dict[str, str]:
    """Name in the file -> name in the result.

    A layer more than the file has is called as the others are::

        file  module.layers.0.weight   network  layers.0.weight   result  layers.0.weight
              -                                 -                         layers.1.weight
        -> module.layers.0.weight, module.layers.1.weight

    Args:
        result: by the names of the network.
        fitted: a checkpoint of the network, by the same names.
        network_name: name in the file -> name in the network.
    """
    file_name = {name: here for here, name in network_name.items()}
    longer, shorter = _prefixes(network_name)
    named: dict[str, str] = {}
    for name in result:
        if name in file_name:
            named[file_name[name]] = name
        elif name not in fitted:  # a layer more; what is fitted and has no name in the file is tied
            named[longer + name.removeprefix(shorter)] = name
    return named


def _with_others(named: Checkpoint, stored: Checkpoint, others: list[str]) -> Checkpoint:
    """A checkpoint, and behind it tensors of another, each read when it is asked for."""
    if not others:
        return named
    beside = stored.select({name: name for name in others})
    return Checkpoint(
        named.path,
        _Joined(named, beside),
        {**named.shapes, **beside.shapes},
        {**named.dtypes, **beside.dtypes},
    )


class _Joined:
    """Reads a tensor of the first checkpoint that has its name."""

    def __init__(self, *parts: Checkpoint) -> None:
        self.parts = parts

    def __call__(self, name: str) -> Tensor:
        return next(part[name] for part in self.parts if name in part)


def _prefixes(network_name: Mapping[str, str]) -> tuple[str, str]:
    """What the file's names have before those of the network, and what they lack."""
    counts: Counter[tuple[str, str]] = Counter()
    for here, name in network_name.items():
        if here.endswith(name):
            counts[here[: len(here) - len(name)], ""] += 1
        elif name.endswith(here):
            counts["", name[: len(name) - len(here)]] += 1
    return counts.most_common(1)[0][0] if counts else ("", "")
