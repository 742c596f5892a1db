"""Matching by the loss half-way, with gradients straight through the matching."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...evaluation import TaskLoss, repeatable
from ...symmetry import SymmetrySpec
from ...tracing import is_integer
from .._ascent import Ascent
from .._elements import to_elements, to_transform
from .._moves import keys_of, moves_of
from .._pieces import STATISTICS, pieces_of
from .._registry import Match, Problem, matcher
from .._stock import Stock


@matcher("straight_through", needs=("model", "data"))
def match_straight_through(
    problem: Problem, *, epochs: int = 10, rate: float = 1e-3, max_sweeps: int = 20
) -> Match:
    r"""The straight-through matcher of Git Re-Basin (Ainsworth et al. 2022,
    https://arxiv.org/abs/2209.04836).

    Looks for weights :math:`\hat\theta` whose weight matching :math:`\pi` of B makes the loss of
    :math:`(A + \pi(B)) / 2` small. :math:`\hat\theta` starts as A; a step matches B to it, and
    gives it the gradient that :math:`\pi(B)` gets, as if the matching were the identity. The
    relabelling with the smallest loss on all data, seen after each epoch, is returned; the
    objective is minus that loss.

    Args:
        epochs: passes over the data.
        rate: of Adam.
        max_sweeps: bound on the passes over all groups within one matching.
    """
    data = repeatable(problem.batches, "matcher 'straight_through'")
    spec, keys, pieces = problem.spec, keys_of(problem.spec), pieces_of(problem.spec)
    moves = moves_of(spec, pieces, keys)
    task = TaskLoss(problem.network, problem.loss, problem.device)
    a, b = (task.prepared(state) for state in problem.pair)
    free = {n: t.clone().requires_grad_() for n, t in a.items() if _counts(spec, n)}
    optimizer = torch.optim.Adam(free.values(), lr=rate)
    generator = torch.Generator().manual_seed(problem.seed)
    elements = to_elements(spec.identity(), keys)

    def match(start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weight matching of B to the free weights."""
        hat = {n: t.detach() for n, t in free.items()}
        stock = Stock(spec, pieces, {**a, **hat}, b, problem.device, 1 << 40)
        ascent = Ascent(stock, moves, keys, start, generator)
        ascent.run(max_sweeps)
        return ascent.elements

    def half_way(elements: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of A and the moved B."""
        moved = to_transform(dict(elements), spec)(b)
        return {n: t if is_integer(t.dtype) else (t + moved[n]) / 2 for n, t in a.items()}

    best = elements
    objective = [-task.mean(half_way(elements), data)]
    for _ in range(epochs):
        for batch in data:
            elements = match(elements)
            # as a value the half-way point; its gradient goes to the free weights:
            #     state = (A + pi(B)) / 2 + (theta - theta') / 2,  theta' = theta without a gradient
            state = half_way(elements)
            state |= {n: state[n] + (t - t.detach()) / 2 for n, t in free.items()}
            optimizer.zero_grad()
            task(state, batch).backward()
            optimizer.step()
        value = -task.mean(half_way(elements), data)
        if value > objective[-1]:
            best = elements
            objective.append(value)
    return Match(to_transform(best, spec), tuple(objective))


def _counts(spec: SymmetrySpec, name: str) -> bool:
    """Whether a parameter is a weight that matching looks at."""
    tensor = spec.tensors.get(name)
    if tensor is None or tensor.tied_to is not None or tensor.integer:
        return False
    return name.rpartition(".")[2] not in STATISTICS
