"""What matchers of many checkpoints share: all of them are moved into one frame, their universe."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graph import real_parts
from ..symmetry import Transform
from ._ascent import Ascent
from ._elements import to_elements, to_transform
from ._moves import keys_of, moves_of
from ._pieces import pieces_of
from ._registry import Match, Problem
from ._stock import Stock, stored_name


class Universe:
    """Checkpoints and how each is moved into the common frame.

    The objective is the sum of inner products between all pairs of moved checkpoints: the larger it
    is, the smaller is the sum of their squared distances.

    Attributes:
        states: what counts of every checkpoint, tied tensors once, in one precision.
        elements: of every checkpoint.
    """

    def __init__(self, problem: Problem) -> None:
        spec = self.spec = problem.spec
        self.keys = keys_of(spec)
        self.pieces = pieces_of(spec)
        self.moves = moves_of(spec, self.pieces, self.keys)
        self.device = problem.device
        checkpoints = [s for s in (problem.reference, *problem.moving) if s is not None]
        names = dict.fromkeys(p.tensor for p in self.pieces)
        stored = [{n: s[stored_name(spec, n, s)].detach() for n in names} for s in checkpoints]
        double = all(t.dtype.to_real() == torch.float64 for s in stored for t in s.values())
        self.dtype = torch.float64 if double else torch.float32
        wide = {False: self.dtype, True: self.dtype.to_complex()}
        self.states = [
            {n: t.to(self.device, wide[t.is_complex()]) for n, t in s.items()} for s in stored
        ]
        self.elements = [to_elements(spec.identity(), self.keys) for _ in self.states]

    def moved(self, number: int) -> dict[str, Tensor]:
        """A checkpoint in the common frame."""
        return to_transform(self.elements[number], self.spec)(self.states[number])

    def value(self) -> float:
        """The objective, in float64."""
        total: dict[str, Tensor] = {}
        alone = 0.0
        for number in range(len(self.states)):
            for name, tensor in self.moved(number).items():
                t = real_parts(tensor).double()
                total[name] = total[name] + t if name in total else t
                alone += float(t.square().sum())
        return (sum(float(t.square().sum()) for t in total.values()) - alone) / 2

    def improve(
        self, number: int, generator: torch.Generator, max_sweeps: int, fresh: bool
    ) -> bool:
        """Move one checkpoint closer to all others by weight matching; whether that helped.

        Args:
            fresh: see :meth:`Ascent.run`.
        """
        others: dict[str, Tensor] = {}
        for other in range(len(self.states)):
            if other != number:
                for name, t in self.moved(other).items():
                    others[name] = others[name] + t if name in others else t
        stock = Stock(self.spec, self.pieces, others, self.states[number], self.device, 1 << 40)
        ascent = Ascent(stock, self.moves, self.keys, self.elements[number], generator)
        ascent.run(max_sweeps, fresh)
        better = ascent.objective[-1] > ascent.objective[0]
        if better:
            self.elements[number] = ascent.elements
        return better

    def matches(self, problem: Problem, objective: Sequence[float]) -> list[Match]:
        """One match for every checkpoint to be moved; relative to the one that stays, if one
        does."""
        transforms = [to_transform(e, self.spec) for e in self.elements]
        if problem.reference is not None:
            back = transforms[0].inverse()
            transforms = [_without_idle(back @ t) for t in transforms[1:]]
        return [Match(t, tuple(objective)) for t in transforms]


def _without_idle(t: Transform) -> Transform:
    keys = keys_of(t.spec)
    return to_transform(to_elements(t, keys), t.spec)


def ascend_together(
    universe: Universe,
    generator: torch.Generator,
    rounds: int,
    max_sweeps: int,
    fresh: bool = False,
) -> list[float]:
    """Git Re-Basin's MergeMany from where the checkpoints are: each in turn to all the others,
    until none improves.

    Args:
        fresh: how they stand means nothing yet.

    Returns:
        The objective at the start, then after every round that raised it.
    """
    objective = [universe.value()]
    for number in range(rounds):
        order = torch.randperm(len(universe.states), generator=generator).tolist()
        improved = [
            universe.improve(n, generator, max_sweeps, fresh and number == 0) for n in order
        ]
        if not any(improved):
            break
        objective.append(universe.value())
    return objective
