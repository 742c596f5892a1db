"""Weight matching."""

import torch

from .._ascent import Ascent
from .._elements import to_elements, to_transform
from .._moves import keys_of, moves_of
from .._pieces import pieces_of
from .._registry import Match, Problem, matcher
from .._stock import Stock


@matcher("weight")
def match_weights(
    problem: Problem,
    *,
    restarts: int = 1,
    random_start: bool = False,
    balance: bool = False,
    max_sweeps: int = 100,
    memory: float = 8.0,
) -> Match:
    r"""Weight matching of Git Re-Basin (Ainsworth et al. 2022, https://arxiv.org/abs/2209.04836),
    for any spec.

    Coordinate ascent on :math:`\sum_t \langle A_t, \pi(B_t) \rangle` over all parameters.
    Statistics of BatchNorm follow but do not count: with them the rest fits worse. Heads with their
    dims and the like are solved together, exactly. The first pass goes from the ends of the network
    inwards and does not look at groups that it has not come to, which ends higher than a start from
    the order in which they stand. Where a group has two axes of one tensor the problem is
    quadratic: it is solved as if one axis stayed, and taken if the true objective rises.

    Args:
        restarts: ascents, each with its own order of groups; the best one counts.
        random_start: ascents after the first start from a random relabelling instead of none.
        balance: match neurons of equal size, for networks whose neurons may be scaled (ReLU,
            BatchNorm).
        max_sweeps: bound on the passes over all groups.
        memory: GiB for copies of the weights and for scores; what does not fit is read or made
            again every time.
    """
    spec = problem.spec
    pieces, keys = pieces_of(spec), keys_of(spec)
    moves = moves_of(spec, pieces, keys)
    room = int(memory * 2**30)
    stock = Stock(spec, pieces, *problem.pair, problem.device, room, balance)
    generator = torch.Generator().manual_seed(problem.seed)
    best = Ascent(stock, moves, keys, to_elements(spec.identity(), keys), generator)
    base = best.objective[0]
    best.run(max_sweeps, fresh=True, best_first=True)
    for _ in range(restarts - 1):
        start = spec.sample(generator) if random_start else spec.identity()
        ascent = Ascent(stock, moves, keys, to_elements(start, keys), generator)
        ascent.run(max_sweeps, fresh=not random_start, best_first=False)
        if ascent.objective[-1] > best.objective[-1]:
            best = ascent
    objective = (base, *(value for value in best.objective[1:] if value > base))
    return Match(to_transform(best.elements, spec), objective)
