"""From solved leaves to groups: what the elements of each depend on, and what they are called."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

from ._bindings import Expr
from ._leaves import Leaves

Keys = Mapping[int, tuple[int, ...]]


def final_keys(leaves: Leaves, tensors: Iterable[tuple[Expr, ...]]) -> Keys:
    """Keys of every free leaf: acyclic (of two that depend on each other the slower is the key) and
    closed."""
    in_order = dict.fromkeys(chain.from_iterable(leaves_of_axes(leaves, axes) for axes in tensors))
    order = {leaf: i for i, leaf in enumerate(in_order)}
    keys: dict[int, list[int]] = {}
    # heads x dims, each of which may depend on the other: dims, the faster, has its key first, and
    # heads can then have none
    for leaf in reversed(order):
        if leaves.reason(leaf) is not None:
            continue
        candidates = sorted(leaves.keys(leaf) & order.keys(), key=order.__getitem__)
        keys[leaf] = [k for k in candidates if not _depends(keys, k, leaf)]
    _close(keys)
    return {leaf: tuple(keys_of_leaf) for leaf, keys_of_leaf in keys.items()}


def leaves_of_axes(leaves: Leaves, axes: Iterable[Expr]) -> Iterator[int]:
    """Every unbound leaf that the axes of a tensor are made of, in order."""
    return chain.from_iterable(map(leaves.unbound, axes))


def _depends(keys: Mapping[int, Collection[int]], leaf: int, on: int) -> bool:
    """Whether a leaf depends on another, be it through others."""
    todo = [leaf]
    seen: set[int] = set()
    while todo:
        current = todo.pop()
        if current == on:
            return True
        if current not in seen:
            seen.add(current)
            todo += keys.get(current, ())
    return False


def _close(keys: dict[int, list[int]]) -> None:
    """Whoever depends on a leaf depends on what that leaf depends on, or loses it."""
    # c on b, b on a: c on b and a; if c must not depend on a, then not on b either
    changed = True
    while changed:
        changed = False
        for leaf, keys_of_leaf in keys.items():
            closed = [k for k in keys_of_leaf if set(keys.get(k, ())).issubset(keys_of_leaf)]
            if len(closed) < len(keys_of_leaf):
                keys[leaf] = closed
                changed = True


def group_names(
    leaves: Leaves, parameters: Mapping[str, tuple[Expr, ...]], keys: Keys
) -> dict[int, str]:
    """Groups are named after the first tensor that has them: the layer that makes the neurons."""
    needed = set(keys).union(*keys.values())
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for tensor, axes in parameters.items():
        stem = tensor.rpartition(".")[0] or tensor
        for leaf in leaves_of_axes(leaves, axes):
            if leaf not in needed or leaf in names:
                continue
            count = counts.get(stem, 0) + 1
            counts[stem] = count
            names[leaf] = stem if count == 1 else f"{stem}#{count}"
    return names
