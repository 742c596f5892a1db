"""Between the names of a file and those of the network."""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..evaluation import fit_to
from ..sources import in_memory, on_disk


class _Renamed:
    """Reads a tensor of one checkpoint by its name in another, and what only the other has from
    there."""

    def __init__(self, given: Checkpoint, names: Mapping[str, str], stored: Checkpoint) -> None:
        self.given, self.names, self.stored = given, names, stored

    def __call__(self, name: str) -> Tensor:
        return self.given[self.names[name]] if name in self.names else self.stored[name]


def as_stored(
    given: Checkpoint, stored: Checkpoint, model: nn.Module
) -> tuple[Checkpoint, list[str]]:
    """A checkpoint of a network by the names of a file; what the file has besides the network stays
    as it is there.

    Args:
        given: by the names of ``model``, which may have more or fewer layers than ``model``.
        stored: a checkpoint of ``model``, by the names of its file.

    Returns:
        The checkpoint, and the names that are none of the network's.
    """
    fitted = fit_to(model, stored)
    if dict(given.shapes) == dict(fitted.shapes):
        back = on_disk(given, model, stored, cast=False)
        return back, list(back.skipped)
    # Other layers or widths.
    if in_memory(stored, model) is not stored:
        return given, []  # transformers loads the module's own layout as well
    by_source = {source: name for name, source in stored.sources.items()}
    names = {by_source[fitted.sources[name]]: name for name in reversed(list(fitted))}
    inverse = {name: here for here, name in names.items()}
    more, less = _prefixes(names)
    where: dict[str, str] = {}
    for name in given:
        if name in inverse:
            where[inverse[name]] = name
        elif name not in fitted:  # a layer more; what is in it and not in the inverse is tied
            where[more + name.removeprefix(less)] = name
    others = [name for name in stored if name not in names]
    shapes = {here: given.shapes[name] for here, name in where.items()} | {
        n: stored.shapes[n] for n in others
    }
    dtypes = {here: given.dtypes[name] for here, name in where.items()} | {
        n: stored.dtypes[n] for n in others
    }
    return Checkpoint(given.path, _Renamed(given, where, stored), shapes, dtypes), others


def _prefixes(names: Mapping[str, str]) -> tuple[str, str]:
    """What the file's names have before those of the network, and what they lack."""
    found: Counter[tuple[str, str]] = Counter()
    for here, name in names.items():
        if here.endswith(name):
            found[here[: len(here) - len(name)], ""] += 1
        elif name.endswith(here):
            found["", name[: len(name) - len(here)]] += 1
    return found.most_common(1)[0][0] if found else ("", "")
