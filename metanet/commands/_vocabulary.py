"""What a merge made of its embeddings, for the configuration and the tokenizer that are written
beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..checkpoints import Checkpoint
from ..errors import MetanetError
from ..merging import HEADS, Inputs, Merged, is_table

_POSITIONS = ("pos", "wpe", "type")


@dataclass(frozen=True)
class Vocabulary:
    """What the stored tensors say of the vocabulary.

    Attributes:
        rows: of every table of tokens in the result -> how many it had in the input that is
            referred to.
        tied: whether the output layer is the embedding; ``None`` where nothing changed.
        taken: the input whose embedding it is as it was; ``None`` if all were merged.
    """

    rows: Mapping[int, int]
    tied: bool | None = None
    taken: Checkpoint | None = None


def vocabulary_of(
    named: Checkpoint,
    merged: Merged,
    inputs: Inputs,
    reference: Checkpoint,
    says_tied: bool | None,
) -> Vocabulary:
    """The vocabulary of a result.

    Args:
        named: the result by the names of the first input's file.
        merged: what :func:`metanet.merge` returned.
        inputs: what was merged.
        reference: the one of them whose configuration goes with the result.
        says_tied: what that says.

    Raises:
        MetanetError: embedding and output layer have different numbers of rows, which no network
            can use.
    """
    like = reference.shapes
    tables = [n for n in named if _is_of_tokens(n, named.shapes[n])]
    rows = {
        named.shapes[n][0]: like[n][0]
        for n in tables
        if n in like and named.shapes[n][0] != like[n][0]
    }
    sizes = {
        named.shapes[n][0]: n
        for n in tables
        if n not in like or like[n][0] in {*rows.values(), *rows}
    }
    if rows and len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise MetanetError(
            f"{first} would have {one:,} rows and {second} {other:,}: take both from one model, overrides={{"
            f'"{first}": {{take: K}}, "{second}": {{take: K}}}}'
        )
    embeddings = [n for n in tables if not n.endswith(HEADS)]
    changed = [n for n in embeddings if n in like and named.shapes[n] != like[n]]
    label = None
    if embeddings:
        label = merged.provenance.taken.get(_in(merged, [*changed, *embeddings][0]))
    taken = inputs.stored[label] if isinstance(label, int) else None
    if label == "base":
        taken = inputs.stored_base
    return Vocabulary(rows, _tied(named, merged, reference, embeddings, says_tied), taken)


def _is_of_tokens(name: str, shape: torch.Size) -> bool:
    return (
        is_table(name, shape) and len(shape) == 2 and not any(word in name for word in _POSITIONS)
    )


def _tied(
    named: Checkpoint, merged: Merged, like: Checkpoint, embeddings: Sequence[str], says: bool | None
) -> bool | None:  # fmt: skip
    heads = [n for n in named if n.endswith(HEADS) and is_table(n, named.shapes[n])]
    if not heads:
        had = any(n.endswith(HEADS) and is_table(n, like.shapes[n]) for n in like)
        return True if merged.provenance.dropped or (had and says is False) else None
    stays = heads[0] in like and says is not True  # a head of its own, as before
    if stays or not embeddings:
        return None
    return _is_one(named, merged, heads[0], embeddings[0])


def _is_one(named: Checkpoint, merged: Merged, head: str, embedding: str) -> bool:
    first = merged.provenance.first
    one, other = _in(merged, head), _in(merged, embedding)
    if first.get(one, one) == first.get(other, other):
        return True
    return named.shapes[head] == named.shapes[embedding] and torch.equal(
        named[head], named[embedding]
    )


def _in(merged: Merged, name: str) -> str:
    """A name of the file by the names of the merge, which a prefix may tell apart."""
    return next(
        (
            own
            for own in merged
            if own == name or own.endswith(f".{name}") or name.endswith(f".{own}")
        ),
        name,
    )
