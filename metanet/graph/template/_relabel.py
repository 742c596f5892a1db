"""What a transform of the parameters does to the graph: the nodes move, and the edges with them."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from ...errors import MetanetError
from ...symmetry import Transform
from ._template import GraphTemplate


def node_order(template: GraphTemplate, transform: Transform) -> Int[Tensor, " nodes"]:
    """The order of nodes after a transform: new node ``i`` is old node ``order[i]``.

    Then ``to_graph(transform(state))`` is ``permute_nodes(to_graph(state), order)`` up to the order
    of edges. Worked out from the edges: the ends of a moved entry are the moved ends. Constant
    edges take the order on to nodes that no tensor reaches.

    Raises:
        MetanetError: the transform is of another architecture, or tears nodes apart.
    """
    unknown = [
        n
        for n, shape in template.shapes.items()
        if getattr(transform.spec.tensors.get(n), "shape", None) != shape
    ]
    if unknown:
        raise MetanetError(
            f"the transform is of another architecture: it has no {unknown[0]} of this shape"
        )
    order = torch.full((template.num_nodes,), -1)
    source, destination = template.static["edge_index"]
    numbers: dict[str, Tensor] = {}
    for name, _, start, count in template.stretches:
        if name is not None:
            numbers[name] = torch.arange(start, start + count, template.parts(name)).view(
                template.shapes[name]
            )
    moved = transform(_all_names(template, numbers))
    for name, _, start, count in template.stretches:
        if name is None:
            continue
        came_from = moved[name].reshape(-1)
        for side in (source, destination):  # both parts of a complex entry have the same ends
            _note(order, side[start : start + count : template.parts(name)], side[came_from])
    constant = [b for b in template.blocks if b.tensor is None]
    if constant:
        edges = torch.cat([b.edges() for b in constant])
        ends = source[edges], destination[edges]
        mixed = torch.randint(2**62, (64,), generator=torch.Generator().manual_seed(0)) * 2 + 1
        kinds = mixed[template.static["edge_type"][edges]]
        blocks = template.static["edge_tensor"][edges]
        sites = template.static["node_site"]
        ways = [
            (guess, some, e) for guess in (None, sites) for some in (False, True) for e in (0, 1)
        ]
        left = len(order)
        sides = [(*ends, kinds, blocks), (*ends[::-1], kinds, blocks)]
        while any(_take_on(order, *sides[e], some, guess) for guess, some, e in ways):
            done = order >= 0
            remaining = int((~done).sum())
            if remaining < 0.8 * left:  # what is settled before and after tells nothing more
                todo, left = ~done, remaining
                todo[torch.ones_like(done).index_fill(0, order[done], False)] = True
                sides = [_only(todo, *side) for side in sides]
    order = torch.where(order < 0, torch.arange(len(order)), order)
    if len(torch.unique(order)) != len(order):
        raise MetanetError(
            "the transform does not relabel the nodes of this graph: two of them would be one"
        )
    return order


def _only(
    todo: Tensor, known: Tensor, other: Tensor, kinds: Tensor, blocks: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The edges whose other ends are yet to be placed."""
    chosen = todo[other]
    return known[chosen], other[chosen], kinds[chosen], blocks[chosen]


def _all_names(template: GraphTemplate, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        each: tensors[name]
        for name, names, _, _ in template.stretches
        if name is not None
        for each in names
    }


def _take_on(
    order: Tensor,
    known: Tensor,
    other: Tensor,
    kinds: Tensor,
    blocks: Tensor,
    some: bool,
    guess: Tensor | None,
) -> bool:
    """Nodes whose neighbours across constant edges all have their place take that of the node with
    these neighbours.

    Neighbourhoods are compared by sums of random numbers. With ``some`` only blocks whose near ends
    all have their place count (in a recurrence, not all ever have). Nodes with the same neighbours
    wait until something else tells them apart; with a ``guess`` (the site of every node) those of
    one site keep their order instead.
    """
    size = len(order)
    if not len(known):
        return False
    if some:
        waiting = torch.zeros(int(blocks.max()) + 1, dtype=torch.bool)
        waiting[blocks[order[known] < 0]] = True
        known, other, kinds = (x[~waiting[blocks]] for x in (known, other, kinds))
    numbers = torch.randint(-(2**62), 2**62, (size,), generator=torch.Generator().manual_seed(1))
    open_ends = torch.zeros(size, dtype=torch.bool)
    open_ends[other[order[known] < 0]] = True
    touched = torch.zeros(size, dtype=torch.bool)
    touched[other] = True
    ready = (touched & ~open_ends & (order < 0)).nonzero()[:, 0]
    if not len(ready):
        return False
    before = torch.zeros(size, dtype=torch.long).index_add_(0, other, numbers[known] * kinds)
    after = torch.zeros(size, dtype=torch.long).index_add_(
        0, other, numbers[order[known].clamp(min=0)] * kinds
    )
    free = touched.clone()
    free[order[order >= 0]] = False
    candidates = free.nonzero()[:, 0]
    if guess is not None:
        ready = ready[guess[ready] == guess[ready].min()]
        candidates = candidates[guess[candidates] == guess[ready[0]]]
    left = ready[after[ready].argsort(stable=True)]
    right = candidates[before[candidates].argsort(stable=True)]
    want, have = after[left], before[right]
    rank = torch.arange(len(left)) - torch.searchsorted(want, want)
    at = torch.searchsorted(have, want) + rank
    inside = at < len(have)
    inside[inside.clone()] = have[at[inside]] == want[inside]
    if guess is None:
        for sums in (want, have):  # neither taken from several nor given to several
            inside &= (
                torch.searchsorted(sums, want, right=True) - torch.searchsorted(sums, want) == 1
            )
    order[left[inside]] = right[at[inside]]
    return bool(inside.any())


def _note(order: Tensor, new: Tensor, old: Tensor) -> None:
    known = order[new] >= 0
    if (order[new[known]] != old[known]).any():
        raise MetanetError(
            "the transform does not relabel the nodes of this graph: it would tear one apart"
        )
    order[new] = old
    if (order[new] != old).any():
        raise MetanetError(
            "the transform does not relabel the nodes of this graph: it would tear one apart"
        )
