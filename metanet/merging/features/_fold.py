"""Merging features inside one network: how far apart its neurons are, and which become one."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...alignment import stored_name
from ...symmetry import SymmetrySpec, TensorAxes, leaves_of
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
        if tensor.tied_to is None and name not in done and _makes(name, tensor, roles, products):
            values = state[stored_name(spec, name, state)]
            along(values, tensor.axes, partial(_add_products, products, roles, name))
    return {group: _squared(product) for group, product in products.items()}


def _makes(name: str, tensor: TensorAxes, roles: Roles, groups: Collection[str]) -> bool:
    """Whether a tensor makes neurons of one of the groups."""
    for number, axis in enumerate(tensor.axes):
        if roles.makes(name, number) and any(leaf.group in groups for leaf in leaves_of(axis)):
            return True
    return False


def _add_products(
    products: Mapping[str, Tensor],
    roles: Roles,
    name: str,
    values: Tensor,
    at: int,
    group: str,
    number: int,
) -> Tensor:
    """Add the inner products of all that a tensor makes of a group's neurons along one axis."""
    if group in products and roles.makes(name, number):
        rows = values.movedim(at, 0).reshape(values.shape[at], -1).double().cpu()
        products[group].addmm_(rows, rows.T)
    return values


def _squared(product: Tensor) -> np.ndarray:
    """Squared distances between vectors of which these are the inner products."""
    squares = product.diagonal()
    distances: np.ndarray = (squares[:, None] + squares - 2 * product).clamp(min=0).numpy()
    return distances


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
    count = len(squared)
    limit = threshold**2 * squared.max(initial=0.0)
    pairs = Pairs(-squared)
    sizes = np.ones(count)
    members = [[neuron] for neuron in range(count)]
    for _ in range(min(int(share * count + 1e-9), count - 1)):
        i, j, score = pairs.best()
        if -score > limit:
            break
        size, other = sizes[i], sizes[j]
        # squared distances to the mean of both (Lance and Williams)
        to_both = size * pairs.scores[i] + other * pairs.scores[j]
        row = (to_both - size * other / (size + other) * score) / (size + other)
        pairs.join(i, j, np.minimum(row, 0.0))
        sizes[i] += other
        members[i] += members[j]
        members[j] = []
    cluster = np.empty(count, np.int64)
    for number, neurons in enumerate(sorted(sorted(joined) for joined in members if joined)):
        cluster[neurons] = number
    return cluster
