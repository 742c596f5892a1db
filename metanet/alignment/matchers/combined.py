"""Matching by weights and activations together."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from .._activations import activation_terms
from .._ascent import Ascent
from .._elements import to_elements, to_transform
from .._moves import Move, keys_of, moves_of
from .._pieces import pieces_of
from .._registry import Match, Problem, matcher
from .._stock import Stock
from .._terms import added_up
from .._wreath import Term


@matcher("combined", needs=("arch", "model", "data"))
def match_weights_and_activations(
    problem: Problem,
    *,
    share: float = 1.0,
    by: str = "covariance",
    balance: bool = False,
    positions: int = 4096,
    batches: int | None = None,
    max_sweeps: int = 100,
    memory: float = 8.0,
) -> Match:
    """Coordinate ascent on what weights and activations say together.

    Weights tell what a neuron could do, activations what it does on data: each settles what the
    other leaves open (neurons that are dead on the data, groups that show nowhere; weights that the
    data never uses). Every group's scores by activations are scaled to what its weights could earn
    at most.

    Args:
        share: of the activations, relative to the weights.
        by, positions, batches: of the activations, see matcher ``activation``.
        balance, max_sweeps, memory: of the weights, see matcher ``weight``.
    """
    spec, keys, pieces = problem.spec, keys_of(problem.spec), pieces_of(problem.spec)
    moves = moves_of(spec, pieces, keys)
    room = int(memory * 2**30)
    stock = Stock(spec, pieces, *problem.pair, problem.device, room, balance)
    terms = added_up(activation_terms(problem, by, positions=positions, batches=batches))
    terms = [scaled for move in moves for scaled in _scaled(move, terms, stock, share)]
    generator = torch.Generator().manual_seed(problem.seed)
    ascent = Ascent(stock, moves, keys, to_elements(spec.identity(), keys), generator, terms)
    ascent.run(max_sweeps, fresh=True)
    return Match(to_transform(ascent.elements, spec), tuple(ascent.objective))


def _scaled(move: Move, terms: Sequence[Term], stock: Stock, share: float) -> list[Term]:
    """The terms whose first group belongs to a move, in the unit of its weights."""
    of_move = [t for t in terms if t.free[0] in move.free]
    most = sum(_most(t) for t in of_move)
    if most == 0:
        return of_move
    numbers = {v.piece for v in move.views} | {*move.twice_pieces}
    weights = sum(stock.norm(0, n) * stock.norm(1, n) for n in numbers)
    scale = share * weights / most
    return [replace(t, scores=t.scores * scale) for t in of_move]


def _most(term: Term) -> float:
    """What a term would earn if every item had its best partner."""
    new = term.scores.shape[: len(term.batch) + len(term.free)]
    return float(abs(term.scores).reshape(*new, -1).max(-1).sum())
