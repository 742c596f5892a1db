"""Matching many networks through a common frame, all groups at once."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from .._elements import to_elements
from .._many import Universe, ascend_together
from .._registry import Match, Problem, matcher
from .._soft import as_matrices, harden, soft_arrange


@matcher("universe", many=True)
def match_in_universe(
    problem: Problem,
    *,
    restarts: int = 1,
    max_steps: int = 100,
    tolerance: float = 1e-6,
    polish: bool = True,
) -> list[Match]:
    r"""C2M3, cycle-consistent multi-model merging (Crisostomi et al. 2024,
    https://arxiv.org/abs/2405.17897).

    Frank-Wolfe on the sum of :math:`\langle \pi_p(W_p), \pi_q(W_q) \rangle` over all pairs of
    networks, in all groups of all networks at once, with doubly stochastic matrices that are
    rounded at the end. Each :math:`\pi` leads into one common frame, so that going round in a
    circle of networks leads back to where one was.

    Args:
        restarts: from the identity, then from points between it and random relabellings; the best
            one counts.
        max_steps: bound on the steps.
        tolerance: stop when a step gains less than this share of the objective.
        polish: after rounding, match each network to the mean of the others until none gets closer.
    """
    generator = torch.Generator().manual_seed(problem.seed)
    universe = Universe(problem)
    start = universe.value()
    best, objective = list(universe.elements), [start]
    for number in range(max(1, restarts)):
        walk = _FrankWolfe(universe, generator if number else None)
        for _ in range(max_steps):
            if walk.step() < tolerance:
                break
        universe.elements = [
            {**e, **harden(m)} for e, m in zip(universe.elements, walk.matrices, strict=True)
        ]
        found = ascend_together(universe, generator, 100 if polish else 0, 100)
        if found[-1] > objective[-1]:
            best, objective = universe.elements, [start, *(v for v in found if v > start)]
    universe.elements = best
    return universe.matches(problem, objective)


class _FrankWolfe:
    """The relaxed problem. The first network defines the frame and does not move.

    Args:
        generator: to start from random points; ``None`` to start from the identity.
    """

    def __init__(self, universe: Universe, generator: torch.Generator | None) -> None:
        self.universe = universe
        self.pieces = [[p.take(s[p.tensor]) for p in universe.pieces] for s in universe.states]
        self.matrices: list[dict[str, Tensor]] = []
        still = to_elements(universe.spec.identity(), universe.keys)
        used = {g for p in universe.pieces for g in p.groups}
        for number in range(len(universe.states)):
            matrices = as_matrices(
                {g: e for g, e in still.items() if g in used}, universe.dtype, universe.device
            )
            if generator is not None and number:
                other = to_elements(universe.spec.sample(generator), universe.keys)
                far = as_matrices({g: other[g] for g in matrices}, universe.dtype, universe.device)
                matrices = {g: (m + far[g]) / 2 for g, m in matrices.items()}
            self.matrices.append(matrices)
        self.degree = 2 * max(sum(g in used for g in p.groups) for p in universe.pieces)

    def value(self, matrices: list[dict[str, Tensor]]) -> Tensor:
        """The objective for soft relabellings."""
        total = torch.zeros((), dtype=torch.float64, device=self.universe.device)
        for number, piece in enumerate(self.universe.pieces):
            groups = [a.group for a in piece.atoms]
            moved = [soft_arrange(own[number], groups, m, self.universe.keys)
                     for own, m in zip(self.pieces, matrices, strict=True)]  # fmt: skip
            together = reduce(torch.add, moved)
            own = reduce(torch.add, [x.square().sum(dtype=torch.float64) for x in moved])
            total = total + (together.square().sum(dtype=torch.float64) - own) / 2
        return total

    def step(self) -> float:
        """Towards the best permutations of the linearised problem, as far as is best; the share
        gained."""
        fixed, *moving = self.matrices
        inputs = [{g: m.detach().requires_grad_() for g, m in each.items()} for each in moving]
        value = self.value([fixed, *inputs])
        leaves = [m for each in inputs for m in each.values()]
        gradients = iter(torch.autograd.grad(value, leaves))
        now = float(value.detach())
        towards = []
        for each in inputs:
            target = harden({g: next(gradients) for g in each})
            towards.append(as_matrices(target, self.universe.dtype, self.universe.device))

        def at(t: float) -> list[dict[str, Tensor]]:
            return [fixed, *({g: m + t * (d[g] - m) for g, m in old.items()}
                             for old, d in zip(moving, towards, strict=True))]  # fmt: skip

        with torch.no_grad():
            best = _best_on_unit(lambda t: float(self.value(at(t))), self.degree, now)
            if best == 0:
                return 0.0
            self.matrices = at(best)
            gained = float(self.value(self.matrices)) - now
        return gained / max(abs(now), 1e-12)


def _best_on_unit(function: Callable[[float], float], degree: int, at_zero: float) -> float:
    """Where on [0, 1] a polynomial is largest, from ``degree`` evaluations besides the one at 0."""
    points = (1 - np.cos(np.pi * np.arange(degree + 1) / degree)) / 2
    values = np.array([at_zero, *(function(float(t)) for t in points[1:])])
    polynomial = np.polynomial.Polynomial.fit(points, values, degree)
    roots = [complex(root) for root in polynomial.deriv().roots()]
    inside = [root.real for root in roots if abs(root.imag) < 1e-9 and 0 < root.real < 1]
    candidates = [0.0, 1.0, *inside]
    return max(candidates, key=lambda t: at_zero if t == 0 else float(polynomial(t)))
