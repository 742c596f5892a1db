"""Masks and index tables that the checkpoints have alike stay alike: groups that would reorder them
stay put.

Such a table is most often part of the code rather than of what was trained. Moved in one checkpoint
and not in the other it would lead the two to read the same weights differently, and merging refuses
tables that differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..symmetry import SymmetrySpec, Transform, leaves_of
from ._registry import Problem


def holding(problem: Problem) -> tuple[Problem, dict[str, str]]:
    """The problem without the groups that would reorder a common table, and these groups with the
    reason.

    With the mask ``[1, 1, 0, 1]`` in both checkpoints its neurons stay; with ``[1, 1, 1, 1]`` in
    both, or with masks that differ, they may move.
    """
    sides = [s for s in (problem.reference, *problem.moving) if s is not None]
    held = dict(_held(problem.spec, sides))
    if not held:
        return problem, held
    spec = problem.spec.holding(held)
    arch = None if problem.arch is None else replace(problem.arch, spec=spec)
    return replace(problem, spec=spec, arch=arch), held


def _held(spec: SymmetrySpec, sides: Sequence[Mapping[str, Tensor]]) -> Iterator[tuple[str, str]]:
    names = [name for name, tensor in spec.tensors.items() if tensor.integer]
    if not names:
        return
    generator = torch.Generator().manual_seed(0)
    probes = [spec.sample(generator) for _ in range(3)]
    for name in names:
        tables = [side[name] for side in sides if name in side]
        if len(tables) < 2 or not all(torch.equal(tables[0], other) for other in tables[1:]):
            continue
        leaves = (leaf for axis in spec.tensors[name].axes for leaf in leaves_of(axis))
        for group in dict.fromkeys(leaf.group for leaf in leaves):
            alone = (Transform(spec, {group: probe.elements[group]}) for probe in probes)
            if any(not torch.equal(move.apply(name, tables[0]), tables[0]) for move in alone):
                yield group, f"to move it would reorder {name}, which the checkpoints have alike"
