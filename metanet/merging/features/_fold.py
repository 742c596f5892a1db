"""Merging features inside one network: how far apart its neurons are, and which become one."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...alignment import stored_name
from ...symmetry import SymmetrySpec, leaves_of
from ._pairs import Pairs
from ._roles import Roles, along
from ._sites import Site


def distances(
    spec: SymmetrySpec,
    roles: Roles,
    groups: Sequence[str],
    sites: Sequence[Site],
    state: Mapping[str, Tensor],
) -> dict[str, np.ndarray]:
    """For every group the squared distances ``(neurons, neurons)`` between what makes its neurons,
    in float64.

    Args:
        sites: of the groups; what makes neurons elsewhere counts as it is.
    """
    products = {g: torch.zeros(spec[g].size, spec[g].size, dtype=torch.float64) for g in groups}
    for site in sites:
        for rows in (site.weights(spec, state), site.offsets(spec, state)):
            products[site.group].addmm_(rows, rows.T)
    done = {name for site in sites for name in site.tensors.values()}
    for name, tensor in spec.tensors.items():
        made = {
            leaf.group
            for n, a in enumerate(tensor.axes)
            if roles.makes(name, n)
            for leaf in leaves_of(a)
        }
        if tensor.tied_to is not None or name in done or not made & {*groups}:
            continue

        def add(values: Tensor, at: int, group: str, number: int, name: str = name) -> Tensor:
            if group in products and roles.makes(name, number):
                rows = values.movedim(at, 0).reshape(values.shape[at], -1).double().cpu()
                products[group].addmm_(rows, rows.T)
            return values

        along(state[stored_name(spec, name, state)], tensor.axes, add)
    out = {}
    for group, product in products.items():
        squares = product.diagonal()
        out[group] = (squares[:, None] + squares - 2 * product).clamp(min=0).numpy()
    return out


def clusters(squared: np.ndarray, threshold: float, share: float) -> np.ndarray:
    """Iteratively merges the two nearest neurons, or means of neurons, in the order of the first of
    each.

    Args:
        squared: squared distances ``(neurons, neurons)``.
        threshold: stop when the nearest are farther than this share of the largest distance.
        share: at most this share of the neurons goes.

    Returns:
        For every neuron the number of its cluster, int64.
    """
    n = len(squared)
    limit = threshold**2 * squared.max(initial=0.0)
    pairs = Pairs(-squared)
    sizes, members = np.ones(n), [[i] for i in range(n)]
    for _ in range(min(int(share * n + 1e-9), n - 1)):
        i, j, score = pairs.best()
        if -score > limit:
            break
        si, sj = sizes[i], sizes[j]
        # squared distances to the mean of both (Lance and Williams)
        row = (si * pairs.scores[i] + sj * pairs.scores[j] - si * sj / (si + sj) * score) / (
            si + sj
        )
        pairs.join(i, j, np.minimum(row, 0.0))
        sizes[i] += sj
        members[i] += members[j]
        members[j] = []
    out = np.empty(n, np.int64)
    for number, found in enumerate(sorted(m for m in (sorted(m) for m in members) if m)):
        out[found] = number
    return out
