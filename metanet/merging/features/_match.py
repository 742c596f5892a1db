"""Which features of several networks belong together, by how they vary on data."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...alignment import (
    Moments,
    NeuronRunner,
    added_up,
    arrange_by_terms,
    cut_axis,
    families,
    keys_of,
    movable_groups,
    terms_of,
    to_elements,
    to_transform,
)
from ...symmetry import Axis, Leaf, Transform, leaves_of
from .._part import Problem
from ._pairs import Pairs

_ALIKE = 1e-9  # settles ties: features of different networks first, of these the same one
_Key = tuple[int, Axis]


def matched(
    problem: Problem,
    zipped: Sequence[str],
    moved: Collection[str],
    positions: int,
    batches: int | None,
) -> tuple[dict[str, np.ndarray], list[Transform]]:
    """Runs all networks over the data.

    Args:
        zipped: groups for which correlations of all features with all others are wanted.
        moved: groups for which the relabellings of activation matching are wanted.

    Returns:
        For every zipped group that shows somewhere the mean correlations ``(k n, k n)`` between its
        features in all k networks, one network after the other; and what moves each network onto
        the first.
    """
    spec, k = problem.structure.spec, len(problem.models)
    within: dict[_Key, Moments] = defaultdict(Moments)
    across: dict[tuple[int, _Key], Moments] = defaultdict(Moments)
    runner = NeuronRunner(problem.structure, problem.network, problem.device)
    for shown in runner.samples(problem.models, islice(problem.batches, batches), positions):
        for place, (tap, sides) in enumerate(shown):
            groups = {leaf.group for leaf in leaves_of(tap.neurons)}
            if groups & {*zipped}:
                every = torch.cat(sides)
                within[place, tap.neurons].add(every, every)
            if groups & {*moved}:
                for m in range(1, k):
                    across[m, (place, tap.neurons)].add(sides[0], sides[m])
    scores: dict[str, np.ndarray] = {}
    counts: dict[str, int] = defaultdict(int)
    for (_, neurons), moments in within.items():
        correlations = _with_dead(moments)
        for group, part, count in _parts(correlations, neurons, zipped, k):
            scores[group] = scores.get(group, 0.0) + part
            counts[group] += count
    keys = keys_of(spec)
    movable = [g for g in movable_groups(spec, keys, keys) if g in moved]
    transforms = [spec.identity()]
    for m in range(1, k):
        of_model = [(n, c) for (which, (_, n)), c in across.items() if which == m]
        terms = added_up(
            [t for n, c in of_model for t in terms_of(c.correlations(), n, keys, movable)]
        )
        start = {g: e.numpy() for g, e in to_elements(spec.identity(), keys).items()}
        arranged, _ = arrange_by_terms(terms, families(movable, keys), keys, start)
        transforms.append(to_transform({g: torch.from_numpy(e) for g, e in arranged.items()}, spec))
    return {g: s / counts[g] for g, s in scores.items()}, transforms


def _with_dead(moments: Moments) -> Tensor:
    """Correlations; of features that hardly vary, 1 with each other and 0 with all others."""
    correlations = moments.correlations()
    dead = correlations.diagonal() == 0
    return torch.where(dead[:, None] & dead, 1.0, correlations)


def _parts(
    correlations: Tensor, neurons: Axis, zipped: Sequence[str], k: int
) -> list[tuple[str, np.ndarray, int]]:
    """What one set of neurons says of groups: ``(group, sums of correlations (k n, k n), how many
    were added up)``."""
    sums = []
    table = correlations.cpu().numpy()
    for factors, places in cut_axis(neurons):
        leaves = [(at, factor) for at, factor in enumerate(factors) if isinstance(factor, Leaf)]
        if len(leaves) != 1 or leaves[0][1].group not in zipped:
            continue
        at, leaf = leaves[0]
        rows = places.movedim(at, 0).reshape(leaf.size, -1).numpy()
        rows = np.concatenate([rows + model * neurons.size for model in range(k)])
        first, *others = (table[np.ix_(column, column)] for column in rows.T)
        sums.append((leaf.group, sum(others, start=first), rows.shape[1]))
    return sums


def zip_features(correlations: np.ndarray, k: int, alpha: float, beta: float) -> np.ndarray:
    """Greedy matching of the features of k networks, within networks too (Stoica et al. 2023,
    section 4).

    Again and again the two features that correlate most become one, which correlates with others as
    the less alike of both did, times alpha, until as many are left as each network has. For more
    than two networks the factor comes in once a feature holds one of every network, or two of one.

    Args:
        correlations: ``(k n, k n)``.
        alpha: 0: none is merged twice as long as others are left.
        beta: of the merges, the share within one network, at most.

    Returns:
        ``(k, n)`` int64: for every feature the number of the one that it becomes part of.
    """
    joining = _Joining(correlations, k, alpha, beta)
    for _ in range(len(joining.cluster) - joining.size):
        joining.step()
    # In the order of the first network's features, as far as they go.
    names, first = np.unique(joining.cluster, return_index=True)
    order = np.argsort(np.argsort(first))
    clusters: np.ndarray = order[np.searchsorted(names, joining.cluster)].reshape(k, joining.size)
    return clusters


class _Joining:
    """The features of k networks, of which more and more have become one.

    Features are numbered network by network; a joined one has the number of its first, and holds so
    many of each network::

        2 networks of 2     cluster  0 1 2 3     counts  10 10 01 01
        1 and 2 join        cluster  0 1 1 3     counts  10 11 00 01
        0 and 3 join        cluster  0 1 1 0     counts  11 11 00 00

    Attributes:
        size: how many features each network has.
        cluster: for every feature the number of the joined one.
    """

    def __init__(self, correlations: np.ndarray, k: int, alpha: float, beta: float) -> None:
        count = len(correlations)
        self.size = count // k
        self.cluster = np.arange(count)
        self._alpha = alpha
        network, feature = np.divmod(np.arange(count), self.size)
        apart = network[:, None] != network
        alike = apart & (feature[:, None] == feature)
        self._fit = correlations.astype(np.float64) + _ALIKE * apart + _ALIKE * alike
        self._pairs = Pairs(self._fit.copy())
        # How often each network may still join two of its own.
        self._budget = np.full(k, int((k - 1) * self.size // k * beta + 1e-9))
        self._counts = np.zeros((count, k), np.int64)
        self._counts[np.arange(count), network] = 1
        for m in np.flatnonzero(self._budget == 0):
            self._forbid(m)

    def step(self) -> None:
        """The two that fit best become one."""
        i, j, score = self._pairs.best()
        if np.isneginf(score):
            self._lift_rules()
            i, j, _ = self._pairs.best()
        counts = self._counts
        within = (counts[i] > 0) & (counts[j] > 0)
        counts[i] += counts[j]
        counts[j] = 0
        self.cluster[self.cluster == j] = i
        self._pairs.join(i, j, self._scores(i, j))
        for m in np.flatnonzero(within):
            self._budget[m] -= 1
            if self._budget[m] == 0:
                self._forbid(m)

    def _scores(self, i: int, j: int) -> np.ndarray:
        """How what is joined at i fits all others: as the less alike did, times alpha."""
        counts = self._counts
        row = np.minimum(self._pairs.scores[i], self._pairs.scores[j])
        if (counts[i] > 1).any() or (counts[i] > 0).all():
            row = row * self._alpha if self._alpha > 0 else np.full_like(row, -np.inf)
        full = (self._budget == 0) & (counts[i] > 0)
        row[(counts[:, full] > 0).any(1)] = -np.inf
        return row

    def _forbid(self, network: int | np.integer[Any]) -> None:
        """Features that hold some of a network may not meet any more."""
        self._pairs.forbid(self._counts[:, network] > 0)

    def _lift_rules(self) -> None:
        """Go on without alpha and budget: among three networks they may leave no pair."""
        self._pairs = Pairs(_least(self._fit, self.cluster))
        self._alpha = 1.0
        self._budget[:] = len(self.cluster)


def _least(fit: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The least score between the features of every two clusters, at the numbers of these; ``-inf``
    elsewhere."""
    order = np.argsort(cluster, kind="stable")
    names, starts = np.unique(cluster[order], return_index=True)
    table = np.minimum.reduceat(
        np.minimum.reduceat(fit[np.ix_(order, order)], starts, 0), starts, 1
    )
    out = np.full_like(fit, -np.inf)
    out[np.ix_(names, names)] = table
    return out


def report(found: Mapping[str, np.ndarray]) -> dict[str, str]:
    """For every group how many features hold some of several networks, and how many of one
    alone."""
    out = {}
    for group, clusters in found.items():
        k, n = clusters.shape
        held = np.zeros((n, k), bool)
        held[clusters, np.arange(k)[:, None]] = True
        several = int((held.sum(1) > 1).sum())
        out[f"features of {group}"] = f"{several} across networks, {n - several} within one"
    return out
