"""Merging alike neurons inside one network."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from ...alignment import checked
from ...errors import MetanetError
from ...symmetry import SymmetrySpec
from .._part import Part, Problem
from .._registry import method
from ..features import (
    Roles,
    along,
    clusters,
    corrections,
    distances,
    free_groups,
    groups_on,
    narrowed,
    sites_of,
)


@dataclass(frozen=True)
class Fold:
    """Which neurons become one.

    Attributes:
        found: group -> for every neuron the number of its cluster; only groups where some are
            merged.
        factors: running variance -> what it is multiplied by, for every cluster.
        shrink: the result is narrower.
    """

    spec: SymmetrySpec
    roles: Roles
    found: Mapping[str, Tensor]
    factors: Mapping[str, Tensor]
    shrink: bool

    def along(self, name: str, tensor: Tensor, at: int, group: str, number: int) -> Tensor:
        """A tensor with the neurons merged along one axis."""
        if group not in self.found:
            return tensor
        cluster = self.found[group].to(tensor.device)
        if not self.roles.makes(name, number):
            if not self.shrink:
                return tensor
            out = tensor.new_zeros(
                *tensor.shape[:at], int(cluster.max()) + 1, *tensor.shape[at + 1 :]
            )
            return out.index_add_(at, cluster, tensor)
        size = torch.bincount(cluster).to(tensor.dtype)
        first = torch.full_like(size, len(cluster), dtype=torch.long)
        first.scatter_reduce_(0, cluster, torch.arange(len(cluster), device=tensor.device), "amin")
        # By differences to the first, so that the mean of equal neurons is that neuron, bit for
        # bit.
        mean = tensor.index_select(at, first)
        differences = tensor - mean.index_select(at, cluster)
        shape = [-1 if axis == at else 1 for axis in range(tensor.ndim)]
        mean = mean + torch.zeros_like(mean).index_add_(at, cluster, differences) / size.view(shape)
        if name in self.factors:
            mean = mean * self.factors[name].to(mean).view(shape)
        return mean if self.shrink else mean.index_select(at, cluster)


def prepare(
    problem: Problem,
    *,
    threshold: float = 0.1,
    share: float = 1.0,
    correct: bool = True,
    shrink: bool = True,
) -> Fold:
    """Finds the neurons that become one, and tells how many are left.

    Args:
        threshold: neurons become one while the nearest are closer than this share of their group's
            largest distance.
        share: at most this share of a group's neurons goes.
        correct: make running variances smaller where merged neurons were not equal, as far as
            weights tell.
        shrink: give the narrower network (its module must be built with the widths of the report);
            false: the network keeps its shape, and merged neurons are equal.
    """
    for name, value in (("threshold", threshold), ("share", share)):
        if not 0 <= value <= 1:
            raise MetanetError(f"method 'ifm': {name}={value}; give a number from 0 to 1")
    arch = problem.structure
    spec = arch.spec
    state = checked(spec, problem.models[0], str(problem.models[0].path))
    groups, reasons, roles = free_groups(arch, state)
    merged: dict[str, Tensor] = {}
    sites = sites_of(spec, arch.template, roles, groups)
    for group, squared in distances(spec, roles, groups, sites, state).items():
        cluster = torch.from_numpy(clusters(squared, threshold, share))
        remaining = _count(cluster)
        problem.report[f"features of {group}"] = f"{remaining} of {len(cluster)}"
        if remaining < len(cluster):
            merged[group] = cluster
    before, after = _sizes(spec, {group: _count(cluster) for group, cluster in merged.items()})
    problem.report["parameters"] = after
    problem.report["share of parameters"] = after / before if before else 1.0
    problem.report.update({f"left as it is: {g}": reason for g, reason in reasons.items()})
    factors = corrections(spec, sites, merged, state) if correct else {}
    return Fold(spec, roles, merged, factors, shrink)


def _count(cluster: Tensor) -> int:
    """How many neurons there are after the merge."""
    return int(cluster.max()) + 1


def _sizes(spec: SymmetrySpec, sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many values the tensors have, and how many with other sizes of groups."""
    before = after = 0
    for tensor in spec.tensors.values():
        if tensor.tied_to is None:
            before += prod(tensor.shape)
            after += prod(narrowed(axis, sizes) for axis in tensor.axes)
    return before, after


def shape(prepared: Fold, name: str, shape: torch.Size) -> torch.Size:
    """Of a tensor of the result."""
    if not prepared.shrink or name not in prepared.spec.tensors:
        return shape
    sizes = {group: _count(cluster) for group, cluster in prepared.found.items()}
    return torch.Size(narrowed(axis, sizes) for axis in prepared.spec.tensors[name].axes)


@method(
    "ifm",
    reference="https://arxiv.org/abs/2310.06756",
    models=(1, 1),
    needs=("arch",),
    prepare=prepare,
    shape=shape,
)
def ifm(part: Part) -> Tensor:
    """Iterative feature merging: alike neurons of one network become one (Chen et al. 2024).

    It takes no data. The two nearest neurons of a group, by all that makes them, become one again
    and again: what makes them is averaged, what reads them is added up, so that the function stays
    where neurons were equal. Behind a norm with running
    statistics neurons are compared by what they do with it.
    ``repair=bn_reset`` with data sets these statistics right: merge with ``shrink=false`` and the
    repair, then the result once more with ``shrink``.

    Neurons of a residual stream are merged in all layers at once. Heads and their dims, and neurons
    that something else than weights looks at together (layer norms over a stream, softmax), are
    left as they are.
    """
    fold: Fold = part.prepared
    if not groups_on(fold.spec, part.name, fold.found):
        return part.tensors[0]
    axes = fold.spec.tensors[part.name].axes
    return along(part.tensors[0], axes, partial(fold.along, part.name))
