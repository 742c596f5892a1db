"""Sites: neurons that one weight makes, with its bias and the norm with running statistics behind
it, if there is one.

What such neurons do is told by weight and bias as they would be without the norm: how large the raw
ones are says nothing before a norm.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...alignment import stored_name
from ...graph import EdgeType, GraphTemplate
from ...symmetry import Axis, Leaf, SymmetrySpec, leaves_of
from ._roles import Roles

_EPS = 1e-5  # of the norm; the usual one
_KINDS = {
    EdgeType.BIAS: "bias",
    EdgeType.VARIANCE: "variance",
    EdgeType.SCALE: "scale",
    EdgeType.MEAN: "mean",
    EdgeType.SHIFT: "shift",
}


@dataclass(frozen=True)
class Site:
    """Neurons of one group.

    Attributes:
        group: their group.
        axis: along which the weight makes them.
        tensors: ``"weight"``, and those there are of ``"bias"``, ``"variance"``, ``"scale"``,
            ``"mean"``, ``"shift"``, vectors with an entry for every neuron.
    """

    group: str
    axis: int
    tensors: Mapping[str, str]

    @property
    def normed(self) -> bool:
        return "variance" in self.tensors

    def weights(self, spec: SymmetrySpec, state: Mapping[str, Tensor]) -> Tensor:
        """All that is multiplied with something, ``(neurons, weights)`` in float64, as if there
        were no norm."""
        weight = state[stored_name(spec, self.tensors["weight"], state)].double().cpu()
        rows = weight.movedim(self.axis, 0).reshape(weight.shape[self.axis], -1)
        return rows * self._gain(spec, state)[:, None] if self.normed else rows

    def offsets(self, spec: SymmetrySpec, state: Mapping[str, Tensor]) -> Tensor:
        """What is added, ``(neurons, 1)``, as if there were no norm."""
        bias = self._vector("bias", 0.0, spec, state)
        if self.normed:
            bias = (bias - self._vector("mean", 0.0, spec, state)) * self._gain(spec, state)
        return (bias + self._vector("shift", 0.0, spec, state))[:, None]

    def _gain(self, spec: SymmetrySpec, state: Mapping[str, Tensor]) -> Tensor:
        scale = self._vector("scale", 1.0, spec, state)
        return scale / (self._vector("variance", 1.0, spec, state) + _EPS).sqrt()

    def _vector(
        self, kind: str, default: float, spec: SymmetrySpec, state: Mapping[str, Tensor]
    ) -> Tensor:
        if kind not in self.tensors:
            return torch.full((spec[self.group].size,), default, dtype=torch.float64)
        return state[stored_name(spec, self.tensors[kind], state)].double().cpu()


def sites_of(
    spec: SymmetrySpec, template: GraphTemplate, roles: Roles, groups: Collection[str]
) -> list[Site]:
    """The sites of the groups. Neurons that several weights make, or parts of one, are in none."""
    kinds: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    uses: Counter[str] = Counter()
    for block in template.blocks:
        if block.tensor is not None:
            kind = _KINDS.get(block.type, "weight")
            kinds[block.destination][kind].append(block.tensor)
            uses[block.tensor] += 1
    sites = []
    for tensors in kinds.values():
        names = {kind: listed[0] for kind, listed in tensors.items()}
        alone = all(uses[name] == 1 for name in names.values())
        if "weight" not in names or not alone or not _complete(tensors):
            continue
        site = _site(spec, roles, names)
        if site is not None and site.group in groups:
            sites.append(site)
    return sites


def _site(spec: SymmetrySpec, roles: Roles, tensors: Mapping[str, str]) -> Site | None:
    """The site of a weight that makes one group's neurons, and of vectors of that group."""
    weight = tensors["weight"]
    candidates = [
        (number, axis)
        for number, axis in enumerate(spec.tensors[weight].axes)
        if roles.makes(weight, number) and _moves(axis)
    ]
    if len(candidates) != 1:
        return None
    number, leaf = candidates[0]
    vectors = [name for kind, name in tensors.items() if kind != "weight"]
    if not isinstance(leaf, Leaf) or any(spec.tensors[name].axes != (leaf,) for name in vectors):
        return None
    return Site(leaf.group, number, tensors)


def _complete(at: Mapping[str, list[str]]) -> bool:
    """Whether there is one tensor of each kind, and statistics with gains and shifts."""
    if any(len(names) > 1 for names in at.values()):
        return False
    if "variance" in at or "mean" in at:
        return "variance" in at and "mean" in at
    return "scale" not in at and "shift" not in at


def _moves(axis: Axis) -> bool:
    return any(True for _ in leaves_of(axis))


def corrections(
    spec: SymmetrySpec,
    sites: Collection[Site],
    found: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """By what running variances are multiplied because neurons were merged.

    The mean of weights that are not equal is shorter than they are, and varies less. Where inputs
    vary alike in all directions, neurons vary as much as their weights are long. (Making the
    weights themselves longer does harm.)

    Args:
        found: group -> for every neuron the number of its cluster.

    Returns:
        Running variance -> factor for every cluster; at least what weights at right angles to each
        other need.
    """
    factors: dict[str, Tensor] = {}
    for site in sites:
        if site.group in found and site.normed:
            rows = site.weights(spec, state)
            factors[site.tensors["variance"]] = _factor(rows, found[site.group])
    return factors


def _factor(rows: Tensor, cluster: Tensor) -> Tensor:
    """For every cluster the squared length of its mean row by the mean squared length of its rows.

    Two rows of length 1 at right angles: their mean has the squared length 1/2.
    """
    sizes = torch.bincount(cluster).double()
    total = rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, cluster, rows)
    mean = total / sizes[:, None]
    squares = rows.square().sum(1)
    before = rows.new_zeros(len(sizes)).index_add(0, cluster, squares) / sizes
    factor = (mean.square().sum(1) / before.clamp(min=1e-300)).where(before > 0, 1.0)
    # of equal neurons nothing changes, bit for bit
    factor = torch.where((factor - 1).abs() < 1e-9, 1.0, factor)
    return torch.maximum(factor, 1 / sizes)
