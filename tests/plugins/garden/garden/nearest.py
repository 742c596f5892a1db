"""A matcher: neurons of the same rank in size belong together."""

import torch

from metanet.alignment import Match, Problem, matcher
from metanet.symmetry import Leaf, SymmetrySpec, Transform


@matcher("nearest")
def nearest(problem: Problem, *, power: float = 2.0) -> Match:
    """Match the largest neuron of one network with the largest of the other, and so on.

    Args:
        power: of the entries in a neuron's size.
    """
    spec, a, b = problem.spec, problem.reference, problem.moving[0]
    elements = {}
    for group in spec.groups:
        if group.kind != "permutation" or group.keys:
            continue
        of_a, of_b = (sizes(spec, group.name, state, power) for state in (a, b))
        # item i of a has rank r; it is to be followed by b's item of rank r
        ranks = of_a.argsort(stable=True).argsort()
        elements[group.name] = of_b.argsort(stable=True)[ranks]
    moved = Transform(spec, elements)
    before, after = (-distance(spec, a, t(b)) for t in (spec.identity(), moved))
    if after < before:
        return Match(spec.identity(), (before,))
    return Match(moved, (before, after))


def sizes(spec: SymmetrySpec, group: str, state, power: float) -> torch.Tensor:
    """Of every item of a group: the sum of powers of all entries attached to it."""
    total = torch.zeros(spec[group].size, dtype=torch.float64)
    for name, known in spec.tensors.items():
        if known.integer or known.tied_to is not None:
            continue
        for axis, made_of in enumerate(known.axes):
            if made_of == Leaf(group, spec[group].size):
                entries = state[name].double().abs().pow(power)
                total += entries.movedim(axis, 0).reshape(len(total), -1).sum(1)
    return total


def distance(spec: SymmetrySpec, a, b) -> float:
    """Between two networks, over all weights."""
    weights = [name for name, known in spec.tensors.items() if not known.integer]
    return float(sum((a[name].double() - b[name].double()).square().sum() for name in weights))
