"""What a merge made of its embeddings, for the configuration and the tokenizer that are written
beside it."""

from collections.abc import Collection, Mapping, Sequence
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
    tables = [name for name in named if _is_of_tokens(name, named.shapes[name])]
    shared = [name for name in tables if name in like]
    before = {name: like[name][0] for name in shared}
    after = {name: named.shapes[name][0] for name in tables}
    rows = {after[name]: before[name] for name in shared if after[name] != before[name]}
    if rows:
        _check_rows(after, before, {*rows, *rows.values()})
    embeddings = [name for name in tables if not name.endswith(HEADS)]
    changed = [name for name in embeddings if name in before and named.shapes[name] != like[name]]
    label = None
    if embeddings:
        label = merged.provenance.taken.get(_in(merged, [*changed, *embeddings][0]))
    origin = inputs.stored[label] if isinstance(label, int) else None
    if label == "base":
        origin = inputs.stored_base
    return Vocabulary(rows, _tied(named, merged, reference, embeddings, says_tied), origin)


def _check_rows(
    after: Mapping[str, int], before: Mapping[str, int], vocabularies: Collection[int]
) -> None:
    """Refuse tables of one vocabulary that have different numbers of rows in the result::

        before  embed 100, head 100      after  embed 120 (taken from one model), head 100

    Args:
        after: rows by name, in the result.
        before: in the input that is referred to.
        vocabularies: numbers of rows that changed, before and after.
    """
    sizes: dict[int, str] = {}
    for name, count in after.items():
        if name not in before or before[name] in vocabularies:
            sizes[count] = name
    if len(sizes) < 2:
        return
    (one, first), (other, second) = list(sizes.items())[:2]
    raise MetanetError(
        f"{first} would have {one:,} rows and {second} {other:,}: take both from one model, "
        f'overrides={{"{first}": {{take: K}}, "{second}": {{take: K}}}}'
    )


def _is_of_tokens(name: str, shape: torch.Size) -> bool:
    of_positions = any(word in name for word in _POSITIONS)
    return is_table(name, shape) and len(shape) == 2 and not of_positions


def _heads(checkpoint: Checkpoint) -> list[str]:
    """Output layers that have a row for each token."""
    names = [name for name in checkpoint if name.endswith(HEADS)]
    return [name for name in names if is_table(name, checkpoint.shapes[name])]


def _tied(
    named: Checkpoint,
    merged: Merged,
    like: Checkpoint,
    embeddings: Sequence[str],
    says: bool | None,
) -> bool | None:
    """Whether the output layer of the result is its embedding; ``None`` where nothing changed."""
    heads = _heads(named)
    if not heads:
        lost = says is False and bool(_heads(like))
        return True if merged.provenance.dropped or lost else None
    stays = heads[0] in like and says is not True  # a head of its own, as before
    if stays or not embeddings:
        return None
    return _is_one(named, merged, heads[0], embeddings[0])


def _is_one(named: Checkpoint, merged: Merged, head: str, embedding: str) -> bool:
    first = merged.provenance.first
    one, other = _in(merged, head), _in(merged, embedding)
    if first.get(one, one) == first.get(other, other):
        return True
    if named.shapes[head] != named.shapes[embedding]:
        return False
    return torch.equal(named[head], named[embedding])


def _in(merged: Merged, name: str) -> str:
    """A name of the file by the names of the merge, which a prefix may tell apart."""
    for merged_name in merged:
        same = merged_name == name
        if same or merged_name.endswith(f".{name}") or name.endswith(f".{merged_name}"):
            return merged_name
    return name
