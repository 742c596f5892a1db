"""The door of a merge: checkpoints are opened, checked, and brought to one set of names, once."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ..checkpoints import Checkpoint, check_plain, load_checkpoint
from ..errors import CheckpointError, MetanetError
from ..evaluation import as_checkpoint, entries, fit_to
from ..tracing import is_integer
from ._advice import on_extra_names, overrides_text
from ._options import Weights
from ._ties import HEADS, by_network, completed, in_all, in_some, same_tensors

BASE = "base"
Label = int | str
"""What ``take`` calls a checkpoint: the number of a model, or :data:`BASE`."""

Ties = Mapping[str, str]
"""Name -> the first name of the same tensor."""


@dataclass(frozen=True)
class Inputs:
    """The checkpoints of a merge, from :func:`open_inputs`; :func:`metanet.merge` takes them.

    Attributes:
        models, base: by the same names.
        stored, stored_base: the same by the names of their files.
        called, called_base: what to call them in recipes and cards.
        first: name -> the first name of the tensor it is tied to, itself if to none.
        dropped: names that only some checkpoints store, because they hold the same values as
            another name.
        untied: names that are tied in some checkpoints only -> what there is to say of it.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None
    stored: tuple[Checkpoint, ...]
    stored_base: Checkpoint | None
    called: tuple[str, ...]
    called_base: str | None
    first: Ties
    dropped: tuple[str, ...] = ()
    untied: Mapping[str, str] = field(default_factory=dict)

    @property
    def like(self) -> Checkpoint:
        """Whose dtypes the result has: the base, or the first model where there is none."""
        return self.models[0] if self.base is None else self.base


@dataclass(frozen=True)
class _Agreed:
    """Checkpoints by one set of names.

    Attributes:
        checkpoints: by the names of the first.
        ties: of each, by these names.
        dropped: names that were left out.
    """

    checkpoints: Mapping[Label, Checkpoint]
    ties: Mapping[Label, Ties]
    dropped: tuple[str, ...]


def open_inputs(
    models: Sequence[Weights],
    base: Weights | None = None,
    model: nn.Module | None = None,
    *,
    takes: Sequence[str] = (),
    ties: Ties = MappingProxyType({}),
) -> Inputs:
    """Open everything, by the names of the network if there is one, else of base or first model.

    Args:
        models: paths, state dicts, lazy checkpoints or modules.
        base: likewise, what the models were fine-tuned from.
        model: the network, perhaps on the meta device.
        takes: patterns of names that are taken from one checkpoint: the others need not have them,
            or may have them in other shapes (heads of other tasks). Where there is a network, all
            must fit it.
        ties: name -> the first name that it is tied to in the architecture, where that is known and
            the module is not.

    Raises:
        MetanetError: there is no model.
        CheckpointError: one can't be opened or holds no plain weights
            (:func:`metanet.checkpoints.check_plain`), or they are not of one architecture; the
            message lists what differs.
    """
    if isinstance(models, str | os.PathLike | nn.Module | Mapping) or not models:
        raise MetanetError("merge takes a list of models: metanet.merge([a, b], method=...)")
    listed: dict[Label, Weights] = dict(enumerate(models))
    if base is not None:
        listed[BASE] = base
    opened = {label: _opened(weights, label) for label, weights in listed.items()}
    for checkpoint in opened.values():
        check_plain(checkpoint, averaged=True, taken=takes)
    if model is None:
        agreed, first, untied = _by_names(opened, takes, ties)
    else:
        agreed, first = _by_module(opened, model)
        untied = {}
    called = {label: _name_of(listed[label], checkpoint) for label, checkpoint in opened.items()}
    numbers = range(len(models))
    return Inputs(
        models=tuple(agreed.checkpoints[number] for number in numbers),
        base=agreed.checkpoints.get(BASE),
        stored=tuple(opened[number] for number in numbers),
        stored_base=opened.get(BASE),
        called=tuple(called[number] for number in numbers),
        called_base=called.get(BASE),
        first=first,
        dropped=agreed.dropped,
        untied=untied,
    )


def _opened(given: Weights, label: Label) -> Checkpoint:
    """A checkpoint of whatever form."""
    if isinstance(given, str | os.PathLike):
        return load_checkpoint(given)
    return as_checkpoint(given, "the base" if label == BASE else f"model {label}")


def _name_of(given: Any, checkpoint: Checkpoint) -> str:
    """What to call an input in recipes and cards."""
    return os.fspath(given) if isinstance(given, str | os.PathLike) else str(checkpoint.path)


# ---------------------------------------------------------------- by the names of a module


def _by_module(
    opened: Mapping[Label, Checkpoint], model: nn.Module
) -> tuple[_Agreed, dict[str, str]]:
    """Checkpoints by the names of the network, and the ties of the result."""
    fitted = {
        label: fit_to(model, checkpoint, str(checkpoint.path))
        for label, checkpoint in opened.items()
    }
    network = entries(model)[1]
    by_name = {name: name for name in network}
    return _Agreed(fitted, {}, ()), by_network(by_name, network, list(fitted.values()))


# ---------------------------------------------------------------- by the names of one another


def _by_names(
    opened: Mapping[Label, Checkpoint], takes: Sequence[str], network: Ties
) -> tuple[_Agreed, dict[str, str], dict[str, str]]:
    """Checkpoints by one set of names, the ties of the result, and those of some only.

    Tensors that are taken from one checkpoint are set aside while the others' names are compared::

        a: x, head (10 rows)     compared: x      result: x of both,
        b: x, head (7 rows)                       head of a, as overrides say
    """
    if BASE in opened:
        opened = {BASE: opened[BASE], **opened}
    ties_of = _ties_of(opened)
    in_every = set.intersection(*map(set, opened.values()))
    shared = [name for name in _first_of(opened) if name in in_every]
    everywhere = in_all(shared, list(ties_of.values()))
    aside = _set_aside(opened, takes, everywhere)
    compared_later = {
        label: _without(checkpoint, aside[label]) for label, checkpoint in opened.items()
    }
    agreed = _agreed(compared_later, ties_of, opened)
    names = _first_of(agreed.checkpoints)
    first = in_all(names, list(agreed.ties.values()))
    compared, ties = list(agreed.checkpoints.values()), list(agreed.ties.values())
    untied = in_some(first, compared, ties)
    first = by_network(first, network, compared)
    for names_aside in aside.values():
        first |= {name: everywhere.get(name, name) for name in names_aside}
    whole = {
        label: _with(checkpoint, opened[label], aside[label])
        for label, checkpoint in agreed.checkpoints.items()
    }
    return _Agreed(whole, agreed.ties, agreed.dropped), first, untied


def _first_of(checkpoints: Mapping[Label, Checkpoint]) -> Checkpoint:
    """The base, or without one the first model: its names are the result's."""
    return next(iter(checkpoints.values()))


def _ties_of(opened: Mapping[Label, Checkpoint]) -> dict[Label, dict[str, str]]:
    """What is tied in each checkpoint, by its own names.

    Tables are compared by their values, unless all checkpoints store heads by the same names and a
    configuration says that they are none of the embedding's.
    """
    checkpoints = list(opened.values())
    heads = {frozenset(filter(_is_head, checkpoint)) for checkpoint in checkpoints}
    alike = len(heads) == 1
    stored = [
        checkpoint.tied if alike and _is_untied(checkpoint) else same_tensors(checkpoint)
        for checkpoint in checkpoints
    ]
    return dict(zip(opened, completed(checkpoints, stored), strict=True))


def _is_head(name: str) -> bool:
    return name.endswith(HEADS)


def _set_aside(
    opened: Mapping[Label, Checkpoint], takes: Sequence[str], everywhere: Ties
) -> dict[Label, list[str]]:
    """Of each checkpoint the names that are taken from one, with all those tied to them."""

    def is_taken(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in takes)

    matching = set(filter(is_taken, chain.from_iterable(opened.values())))
    tensors = {everywhere.get(name, name) for name in matching}
    tied = {name for name, first in everywhere.items() if first in tensors}
    names = matching | tied
    return {
        label: [name for name in checkpoint if name in names]
        for label, checkpoint in opened.items()
    }


def _agreed(
    given: Mapping[Label, Checkpoint],
    told: Mapping[Label, Ties],
    opened: Mapping[Label, Checkpoint],
) -> _Agreed:
    """Checkpoints by the names of the first of them.

    Args:
        given: what is to agree.
        told: what is tied in each, by its own names.
        opened: all of them, for messages.
    """
    own_ties = {
        label: {name: one for name, one in told[label].items() if name in checkpoint}
        for label, checkpoint in given.items()
    }
    dropped = _dropped(given, own_ties)
    reference = _without(_first_of(given), dropped)
    fitted: dict[Label, Checkpoint] = {}
    for label, checkpoint in given.items():
        if not fitted:
            fitted[label] = reference
            continue
        other = _without(checkpoint, dropped)
        try:
            fitted[label] = _fitted(other, reference)
        except CheckpointError as error:
            raise _different(error, reference, other, on_extra_names(opened)) from error
    ties = {
        label: _renamed(own_ties[label], checkpoint, given[label].sources)
        for label, checkpoint in fitted.items()
    }
    return _Agreed(fitted, ties, dropped)


def _fitted(other: Checkpoint, reference: Checkpoint) -> Checkpoint:
    """A checkpoint by the names of another.

    Integer buffers are never merged, and library versions differ in which they store: either may
    lack some.
    """
    lacking = _integers_missing(reference, lambda name: any(n.endswith(name) for n in other))
    extra = _integers_missing(other, lambda name: any(name.endswith(n) for n in reference))
    return _without(other, extra).fit(_without(reference, lacking))


def _integers_missing(checkpoint: Checkpoint, is_there: Any) -> list[str]:
    integers = [name for name in checkpoint if is_integer(checkpoint.dtypes[name])]
    return [name for name in integers if not is_there(name)]


def _dropped(given: Mapping[Label, Checkpoint], ties: Mapping[Label, Ties]) -> tuple[str, ...]:
    """The head that some store and others tie; nothing where one has another head, or one of its own.

    What ties its head need not store it, and who stores it all the same holds the embedding twice.
    """
    duplicates = {label: _duplicate_head(ties[label]) for label in given}
    heads = [head for head in duplicates.values() if head is not None]
    if not heads:
        return ()
    head = heads[0]
    storing = [label for label, checkpoint in given.items() if head in checkpoint]
    same = all(duplicates[label] == head for label in storing)
    return (head,) if same and len(storing) < len(given) else ()


def _duplicate_head(ties: Ties) -> str | None:
    """An output layer that holds the values of another tensor, the embedding, once more."""
    repeated = {one for name, one in ties.items() if name != one}
    heads = [name for name, one in ties.items() if _is_head(name) and one in repeated]
    return heads[0] if heads else None


def _renamed(ties: Ties, fitted: Checkpoint, own: Mapping[str, str]) -> dict[str, str]:
    """Ties by the names that a checkpoint has after fitting.

    Args:
        own: name before -> name in the file.
    """
    before = {stored: name for name, stored in own.items()}
    first: dict[str, str] = {}
    renamed = {}
    for name, stored in fitted.sources.items():
        old = before[stored]
        renamed[name] = first.setdefault(ties.get(old, old), name)
    return renamed


def _without(checkpoint: Checkpoint, names: Iterable[str]) -> Checkpoint:
    leaving = set(names)
    staying = {name: shape for name, shape in checkpoint.shapes.items() if name not in leaving}
    if len(staying) == len(checkpoint):
        return checkpoint
    return checkpoint.fit(staying, prefix="", extra="drop")


def _with(fitted: Checkpoint, opened: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """A fitted checkpoint, and tensors of these names from the one that it was made of."""
    if not names:
        return fitted
    by_file = {stored: name for name, stored in opened.sources.items()}
    selected = {name: by_file[stored] for name, stored in fitted.sources.items()}
    return opened.select({**selected, **{name: name for name in names}})


def _is_untied(checkpoint: Checkpoint) -> bool:
    """Whether a configuration says so: then the tensors need not be read."""
    config = checkpoint.metadata.get("config")
    return isinstance(config, dict) and config.get("tie_word_embeddings") is False


def _different(
    error: CheckpointError, reference: Checkpoint, other: Checkpoint, extras: str
) -> CheckpointError:
    """What differs between two checkpoints, and what to do about heads and vocabularies."""
    lines = str(error).splitlines()[1:]
    text = f"'{other.path}' and '{reference.path}' are not of one architecture:\n"
    text += "\n".join(lines)
    of_one = [name for name in {*reference, *other} if (name in reference) != (name in other)]
    heads = [name for name in of_one if name.endswith(HEADS)]
    if heads:
        text += (
            f"\nOnly one of them stores {heads[0]}, with values other than its embedding's: that "
            "one has a head of its own, the other ties it. Untie the other (store the embedding "
            "under that name too), tie this one, or take it from this one alone."
        )
    shared = [name for name in reference if name in other]
    rows = [name for name in shared if _rows_differ(reference.shapes[name], other.shapes[name])]
    if any(_is_vocabulary(name) for name in rows):
        text += (
            f"\nThe vocabularies differ ({reference.shapes[rows[0]][0]:,} and "
            f"{other.shapes[rows[0]][0]:,} rows in {rows[0]}): resize the embeddings of one to the "
            "other's tokenizer first (model.resize_token_embeddings in transformers), or take such "
            f"tensors from one model: {overrides_text({name: {'take': 0} for name in rows[:3]})}."
        )
    return CheckpointError(text + extras)


def _is_vocabulary(name: str) -> bool:
    return "emb" in name.lower() or "wte" in name or name.endswith(HEADS)


def _rows_differ(one: torch.Size, other: torch.Size) -> bool:
    return len(one) == len(other) > 1 and one[0] != other[0] and one[1:] == other[1:]
