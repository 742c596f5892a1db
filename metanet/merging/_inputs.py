"""The checkpoints of a merge, opened and brought to the same names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint, check_plain, load_checkpoint
from ..errors import CheckpointError, MetanetError
from ..evaluation import as_checkpoint, entries, fit_to
from ..tracing import is_integer
from ._advice import on_extra_names, overrides_text
from ._ties import HEADS, by_network, completed, in_all, in_some, same_tensors

Weights = str | os.PathLike | nn.Module | Mapping[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """The checkpoints of a merge.

    Attributes:
        models, base: by the same names.
        first: name -> the first name of the tensor it is tied to, itself if to none.
        dropped: names that only some checkpoints store, because they hold the same values as
            another name.
        untied: names that are tied in some checkpoints only -> what there is to say of it.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None
    first: Mapping[str, str]
    dropped: tuple[str, ...] = ()
    untied: Mapping[str, str] = field(default_factory=dict)


def opened(given: Weights, who: str) -> Checkpoint:
    """A checkpoint of whatever form.

    Raises:
        CheckpointError: it can't be opened, or is something else.
    """
    return (
        load_checkpoint(given)
        if isinstance(given, str | os.PathLike)
        else as_checkpoint(given, who)
    )


def open_inputs(
    models: Sequence[Weights], base: Weights | None, model: nn.Module | None, takes: Sequence[str] = (),
    ties: Mapping[str, str] = MappingProxyType({}),
) -> Inputs:  # fmt: skip
    """Open everything, by the names of the network if there is one, else by those of the base, else
    of the first.

    Args:
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
    found = [opened(each, f"model {k}") for k, each in enumerate(models)]
    of_base = None if base is None else opened(base, "the base")
    for each in [*found, *([] if of_base is None else [of_base])]:
        check_plain(each, averaged=True, taken=takes)
    if model is not None:
        fitted = [fit_to(model, each, str(each.path)) for each in found]
        of_base = None if of_base is None else fit_to(model, of_base, str(of_base.path))
        network = entries(model)[1]
        own = {name: name for name in network}
        return Inputs(
            tuple(fitted), of_base, by_network(own, network, [*fitted, *filter(None, [of_base])])
        )
    both = [*([] if of_base is None else [of_base]), *found]
    labels = [*([] if of_base is None else ["base"]), *range(len(found))]
    both, first, dropped, untied = _by_names(both, labels, takes, ties)
    return Inputs(
        tuple(both[len(both) - len(found) :]),
        None if of_base is None else both[0],
        first,
        dropped,
        untied,
    )


def _by_names(
    given: list[Checkpoint],
    labels: Sequence[int | str],
    takes: Sequence[str],
    network: Mapping[str, str],
) -> tuple[list[Checkpoint], dict[str, str], tuple[str, ...], dict[str, str]]:
    """Checkpoints by the names of the first of them, and the other fields of :class:`Inputs`."""
    alike = len({frozenset(n for n in each if n.endswith(HEADS)) for each in given}) == 1
    told = completed(
        given, [each.tied if alike and _is_untied(each) else same_tensors(each) for each in given]
    )
    everywhere = in_all([n for n in given[0] if all(n in each for each in given)], told)
    matched = {
        n for each in given for n in each if any(fnmatchcase(n, pattern) for pattern in takes)
    }
    tensors = {
        everywhere.get(n, n) for n in matched
    }  # whoever takes one of its names takes the tensor
    exempt = [[n for n in each if n in matched or everywhere.get(n) in tensors] for each in given]
    rest = [_without(each, names) for each, names in zip(given, exempt, strict=True)]
    agreed, told, dropped = _agreed(rest, told, labels)
    first = in_all(agreed[0], told)
    untied = in_some(first, agreed, told)
    first = by_network(first, network, agreed)
    first |= {name: everywhere.get(name, name) for names in exempt for name in names}
    whole = [
        _with(each, one, names) for each, one, names in zip(agreed, given, exempt, strict=True)
    ]
    return whole, first, dropped, untied


def _agreed(
    given: list[Checkpoint], told: list[dict[str, str]], labels: Sequence[int | str]
) -> tuple[list[Checkpoint], list[dict[str, str]], tuple[str, ...]]:
    """Checkpoints by the names of the first of them; what is tied in each, by these; names that
    were left out.

    Args:
        told: what is tied in each, by its own names.
        labels: what ``take`` calls each of them.
    """
    told = [
        {n: one for n, one in ties.items() if n in each}
        for ties, each in zip(told, given, strict=True)
    ]
    duplicates = [_duplicate_head(ties) for ties in told]
    tied = next((d for d in duplicates if d is not None), None)
    dropped: tuple[str, ...] = ()
    if tied is not None and all(
        d == tied or tied not in each for d, each in zip(duplicates, given, strict=True)
    ):
        # What ties its head need not store it; who stores it all the same holds the embedding
        # twice.
        dropped = (tied,) if any(tied not in each for each in given) else ()
    reference = _without(given[0], dropped)
    out = [reference]
    for other in given[1:]:
        other = _without(other, dropped)
        # Integer buffers are never merged, and library versions differ in which they store.
        lacking = [
            n
            for n in reference
            if is_integer(reference.dtypes[n]) and not any(m.endswith(n) for m in other)
        ]
        extra = [
            n
            for n in other
            if is_integer(other.dtypes[n]) and not any(n.endswith(m) for m in reference)
        ]
        try:
            out.append(_without(other, extra).fit(_without(reference, lacking)))
        except CheckpointError as error:
            raise _different(error, reference, other, on_extra_names(given, labels)) from error
    return (
        out,
        [_renamed(ties, each, own) for ties, each, own in zip(told, out, given, strict=True)],
        dropped,
    )


def _renamed(ties: Mapping[str, str], checkpoint: Checkpoint, own: Checkpoint) -> dict[str, str]:
    """Ties by the names that a checkpoint has after fitting.

    Args:
        own: the checkpoint before.
    """
    before = {stored: name for name, stored in own.sources.items()}
    first: dict[str, str] = {}
    named = ((name, before[stored]) for name, stored in checkpoint.sources.items())
    return {name: first.setdefault(ties.get(old, old), name) for name, old in named}


def _without(checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    kept = {n: s for n, s in checkpoint.shapes.items() if n not in set(names)}
    return (
        checkpoint
        if len(kept) == len(checkpoint)
        else checkpoint.fit(kept, prefix="", extra="drop")
    )


def _with(checkpoint: Checkpoint, whole: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """The checkpoint, and tensors of these names from the one that it was made of."""
    if not names:
        return checkpoint
    shapes = {**checkpoint.shapes, **{n: whole.shapes[n] for n in names}}
    dtypes = {**checkpoint.dtypes, **{n: whole.dtypes[n] for n in names}}
    own = set(names)

    def read(name: str) -> Tensor:
        return whole[name] if name in own else checkpoint[name]

    return Checkpoint(checkpoint.path, read, shapes, dtypes, checkpoint.metadata)


def _is_untied(checkpoint: Checkpoint) -> bool:
    """Whether a configuration says so: then the tensors need not be read."""
    config = checkpoint.metadata.get("config")
    return isinstance(config, dict) and config.get("tie_word_embeddings") is False


def _duplicate_head(ties: Mapping[str, str]) -> str | None:
    """An output layer that holds the values of another tensor, the embedding, once more."""
    of_heads = {one for name, one in ties.items() if name != one}
    heads = [name for name, one in ties.items() if name.endswith(HEADS) and one in of_heads]
    return heads[0] if heads else None


def _different(
    error: CheckpointError, reference: Checkpoint, other: Checkpoint, extras: str
) -> CheckpointError:  # fmt: skip
    lines = str(error).splitlines()[1:]
    text = f"'{other.path}' and '{reference.path}' are not of one architecture:\n" + "\n".join(
        lines
    )
    heads = [
        n for n in {*reference, *other} if n.endswith(HEADS) and (n in reference) != (n in other)
    ]
    rows = [
        n for n in reference if n in other and _rows_differ(reference.shapes[n], other.shapes[n])
    ]
    if heads:
        text += (
            f"\nOnly one of them stores {heads[0]}, with values other than its embedding's: that one has a head of its "
            "own, the other ties it. Untie the other (store the embedding under that name too), tie this one, or take "
            "it from this one alone."
        )
    if any("emb" in n.lower() or "wte" in n or n.endswith(HEADS) for n in rows):
        text += (
            f"\nThe vocabularies differ ({reference.shapes[rows[0]][0]:,} and {other.shapes[rows[0]][0]:,} rows in "
            f"{rows[0]}): resize the embeddings of one to the other's tokenizer first "
            "(model.resize_token_embeddings in transformers), or take such tensors from one model: "
            f"{overrides_text({name: {'take': 0} for name in rows[:3]})}."
        )
    return CheckpointError(text + extras)


def _rows_differ(one: torch.Size, other: torch.Size) -> bool:
    return len(one) == len(other) > 1 and one[0] != other[0] and one[1:] == other[1:]


def source(given: Any, checkpoint: Checkpoint) -> str:
    """What to call an input in recipes and cards."""
    return os.fspath(given) if isinstance(given, str | os.PathLike) else str(checkpoint.path)
