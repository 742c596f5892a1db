"""Names of one tensor: a merge computes it once, so that what was tied stays tied.

Ties are told by storage (modules, state dicts, torch files), by values (a file that holds the
embedding twice), or by the network. Only those that hold in every input hold in the result:

    a: emb = head,  b: emb = head    ->  one tensor, one draw of random numbers
    a: emb = head,  b: emb, head     ->  two tensors, and the report says so
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..checkpoints import Checkpoint
from ..errors import CheckpointError
from ._layers import place_of

HEADS = ("lm_head.weight", "embed_out.weight", "output_projection.weight", "decoder.weight")
"""How the names of output layers end that may be the embedding."""
_EMBEDDINGS = ("emb", "wte", "shared")


def same_tensors(checkpoint: Checkpoint) -> dict[str, str]:
    """Name -> the first name of its tensor, for every name: by storage, and by the values of
    embeddings and heads.

    Only these are compared, for that takes reading them.
    """
    first = {name: name for name in checkpoint} | dict(checkpoint.tied)
    alike: dict[tuple[torch.Size, torch.dtype], list[str]] = defaultdict(list)
    for name, shape in checkpoint.shapes.items():
        dtype = checkpoint.dtypes[name]
        if is_table(name, shape) and dtype.is_floating_point and first[name] == name:
            alike[shape, dtype].append(name)
    again: dict[str, str] = {}
    for names in alike.values():
        if len(names) > 1:
            again.update(_repeated(checkpoint, names))
    return {name: again.get(one, one) for name, one in first.items()}


def is_table(name: str, shape: torch.Size) -> bool:
    """Whether a tensor is an embedding or an output layer, by its name.

    Such tensors lie outside the layers and have two axes or more.
    """
    if len(shape) < 2 or place_of(name) is not None:
        return False
    return name.endswith(HEADS) or any(word in name.lower() for word in _EMBEDDINGS)


def _repeated(checkpoint: Checkpoint, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names of tensors that have the values of one before, with the name of that."""
    distinct: dict[str, Tensor] = {}
    for name in names:
        tensor = checkpoint[name]
        equal = (other for other, values in distinct.items() if torch.equal(values, tensor))
        one = next(equal, None)
        if one is None:
            distinct[name] = tensor
        else:
            yield name, one


def completed(
    given: Sequence[Checkpoint], told: Sequence[Mapping[str, str]]
) -> list[dict[str, str]]:
    """What is tied in each checkpoint, where copies of tensors that are tied in another count as
    tied.

    A state dict that was read from a file has memory of its own for every name.
    """
    pairs: dict[tuple[str, str], None] = {}  # in order, each once
    for ties in told:
        pairs.update({(name, one): None for name, one in ties.items() if name != one})
    return [
        _complete(checkpoint, ties, pairs) for checkpoint, ties in zip(given, told, strict=True)
    ]


def _complete(
    checkpoint: Checkpoint, ties: Mapping[str, str], pairs: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """The ties of one checkpoint, and those of the pairs that have equal values in it."""
    complete = dict(ties)
    for name, one in pairs:
        has_both = name in checkpoint and one in checkpoint
        if not has_both or ties.get(name, name) == ties.get(one, one):
            continue
        if torch.equal(checkpoint[name], checkpoint[one]):
            complete[name] = complete.get(one, one)
    return complete


def in_all(names: Iterable[str], told: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Name -> the first name that it is tied to in every input.

    >>> in_all(["emb", "head"], [{"emb": "emb", "head": "emb"}, {"emb": "emb", "head": "emb"}])
    {'emb': 'emb', 'head': 'emb'}
    >>> in_all(["emb", "head"], [{"emb": "emb", "head": "emb"}, {"emb": "emb", "head": "head"}])
    {'emb': 'emb', 'head': 'head'}
    """
    seen: dict[tuple[str, ...], str] = {}
    first: dict[str, str] = {}
    for name in names:
        everywhere = tuple(ties.get(name, name) for ties in told)
        first[name] = seen.setdefault(everywhere, name)
    return first


def in_some(
    first: Mapping[str, str], inputs: Sequence[Checkpoint], told: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Names that are tied in some inputs only -> what there is to say of it."""
    untied: dict[str, str] = {}
    for checkpoint, ties in zip(inputs, told, strict=True):
        in_result = {name: one for name, one in ties.items() if {name, one} <= first.keys()}
        for name, one in in_result.items():
            if first[name] != first[one]:
                text = f"one tensor with {one} in '{checkpoint.path}', two in others: two in the result"
                untied.setdefault(name, text)
    return untied


def by_network(
    first: Mapping[str, str], network: Mapping[str, str], inputs: Sequence[Checkpoint]
) -> dict[str, str]:
    """Ties of the inputs and those of the network.

    Args:
        first: name -> first name, by the inputs.
        network: the same by the network.

    Raises:
        CheckpointError: an input holds two tensors where the network has one, so that one of them
            would be lost.
    """
    place = {name: number for number, name in enumerate(first)}
    # Chains of names, each of which leads to the first one of its tensor.
    root = {name: name for name in first}

    def root_of(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for name in first:
        for other in (first[name], network.get(name, name)):
            if other in root:
                early, late = sorted((root_of(name), root_of(other)), key=place.__getitem__)
                root[late] = early
    joined = {name: root_of(name) for name in first}
    only_in_network = [name for name, one in joined.items() if first[name] != first[one]]
    for name in only_in_network:
        for checkpoint in inputs:
            _check_one(checkpoint, name, joined[name])
    return joined


def _check_one(checkpoint: Checkpoint, name: str, other: str) -> None:
    """Raises CheckpointError if two names of a checkpoint hold different tensors."""
    stored = checkpoint.sources
    tied = checkpoint.tied
    if name not in stored or other not in stored or stored[name] == stored[other]:
        return
    if tied.get(name, name) == tied.get(other, other):
        return
    if not torch.equal(checkpoint[name], checkpoint[other]):
        raise CheckpointError(
            f"checkpoint '{checkpoint.path}': {name} and {other} differ, but are one tensor in the "
            "network: one of them would be lost. Merge without the network (no arch=, no model=), "
            "or make them equal"
        )
