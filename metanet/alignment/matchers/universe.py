"""Matching many networks through a common frame, all groups at once."""

from collections.abc import Callable, Collection
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from ...symmetry import Transform
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
    best = list(universe.elements)
    objective = [start]
    for number in range(max(1, restarts)):
        walk = _FrankWolfe(universe, generator if number else None)
        for _ in range(max_steps):
            if walk.step() < tolerance:
                break
        rounded = [harden(matrices) for matrices in walk.matrices]
        universe.elements = [e | r for e, r in zip(universe.elements, rounded, strict=True)]
        values = ascend_together(universe, generator, 100 if polish else 0, 100)
        if values[-1] > objective[-1]:
            best = universe.elements
            objective = [start, *(value for value in values if value > start)]
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
        used = {g for p in universe.pieces for g in p.groups}
        still = self._as_matrices(universe.spec.identity(), used)
        for number in range(len(universe.states)):
            matrices = dict(still)
            if generator is not None and number:
                far = self._as_matrices(universe.spec.sample(generator), used)
                matrices = {g: (m + far[g]) / 2 for g, m in still.items()}
            self.matrices.append(matrices)
        self.degree = 2 * max(sum(g in used for g in p.groups) for p in universe.pieces)

    def _as_matrices(self, transform: Transform, used: Collection[str]) -> dict[str, Tensor]:
        elements = to_elements(transform, self.universe.keys)
        elements = {g: e for g, e in elements.items() if g in used}
        return as_matrices(elements, self.universe.dtype, self.universe.device)

    def value(self, matrices: list[dict[str, Tensor]]) -> Tensor:
        """The objective for soft relabellings."""
        # sum over p < q of <x_p, x_q>  =  (|x_1 + ... + x_k|^2 - |x_1|^2 - ... - |x_k|^2) / 2
        total = torch.zeros((), dtype=torch.float64, device=self.universe.device)
        for number, piece in enumerate(self.universe.pieces):
            groups = [atom.group for atom in piece.atoms]
            moved = [
                soft_arrange(arrays[number], groups, soft, self.universe.keys)
                for arrays, soft in zip(self.pieces, matrices, strict=True)
            ]
            together = reduce(torch.add, moved).square().sum(dtype=torch.float64)
            alone = reduce(torch.add, [x.square().sum(dtype=torch.float64) for x in moved])
            total = total + (together - alone) / 2
        return total

    def step(self) -> float:
        """Towards the best permutations of the linearised problem, as far as is best; the share
        gained."""
        fixed, *moving = self.matrices
        inputs = [{g: m.detach().requires_grad_() for g, m in soft.items()} for soft in moving]
        value = self.value([fixed, *inputs])
        now = float(value.detach())
        towards = self._linear_best(value, inputs)

        def at(share: float) -> list[dict[str, Tensor]]:
            """The matrices at a share of the way."""
            points = [fixed]
            for begin, end in zip(moving, towards, strict=True):
                points.append({g: m + share * (end[g] - m) for g, m in begin.items()})
            return points

        with torch.no_grad():
            best = _best_on_unit(lambda share: float(self.value(at(share))), self.degree, now)
            if best == 0:
                return 0.0
            self.matrices = at(best)
            gained = float(self.value(self.matrices)) - now
        return gained / max(abs(now), 1e-12)

    def _linear_best(
        self, value: Tensor, inputs: list[dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """The permutations with the largest inner product with the gradient, as matrices."""
        leaves = [m for soft in inputs for m in soft.values()]
        gradients = iter(torch.autograd.grad(value, leaves))
        towards = []
        for soft in inputs:
            target = harden({g: next(gradients) for g in soft})
            towards.append(as_matrices(target, self.universe.dtype, self.universe.device))
        return towards


def _best_on_unit(function: Callable[[float], float], degree: int, at_zero: float) -> float:
    """Where on [0, 1] a polynomial is largest, from ``degree`` evaluations besides the one at 0."""
    points = (1 - np.cos(np.pi * np.arange(degree + 1) / degree)) / 2
    values = np.array([at_zero, *(function(float(t)) for t in points[1:])])
    polynomial = np.polynomial.Polynomial.fit(points, values, degree)
    roots = [complex(root) for root in polynomial.deriv().roots()]
    inside = [root.real for root in roots if abs(root.imag) < 1e-9 and 0 < root.real < 1]
    candidates = [0.0, 1.0, *inside]
    return max(candidates, key=lambda t: at_zero if t == 0 else float(polynomial(t)))
