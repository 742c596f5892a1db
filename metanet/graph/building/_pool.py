"""The nodes in the making: sites are allotted in turn, and what turns out to be one neuron is made
one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..template._schema import NodeType
from ._ids import NONE, compact, distinct


@dataclass
class Site:
    """Nodes that were made together.

    Attributes:
        name: the tensor or operation that made them.
        start, count: their numbers.
        type: what they stand for.
        layer: longest path from the inputs, counted in sites.
        raw: entries of an input of which it is not known yet which of them are one neuron.
    """

    name: str
    start: int
    count: int
    type: NodeType
    layer: int
    raw: bool = False

    @property
    def ids(self) -> Tensor:
        return torch.arange(self.start, self.start + self.count)


@dataclass
class Pool:
    """All nodes, with a union-find over them."""

    sites: list[Site] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)  # one per node: the group that moves it
    activation: dict[int, int] = field(
        default_factory=dict
    )  # what follows a node, where anything does
    value: dict[int, int] = field(default_factory=dict)  # the value that a node shows in
    unions: int = 0  # how often nodes were united
    _parents: np.ndarray = field(
        default_factory=lambda: np.empty(1024, dtype=np.int64)
    )  # with room for more
    _ranks: np.ndarray = field(default_factory=lambda: np.empty(1024, dtype=np.int64))
    _flat: bool = True  # whether every parent stands for itself
    _starts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.groups)

    def new(
        self,
        name: str,
        count: int,
        type: NodeType,
        layer: int,
        groups: Sequence[str] | str = "",
        raw: bool = False,
    ) -> Site:
        site = Site(name, len(self), count, type, layer, raw)
        self.sites.append(site)
        self.starts.append(site.start)
        self._starts = None
        self.groups += [groups] * count if isinstance(groups, str) else groups
        while len(self._parents) < len(self):
            self._parents, self._ranks = (
                np.concatenate([x, np.empty_like(x)]) for x in (self._parents, self._ranks)
            )
        numbers = np.arange(site.start, site.start + count)
        self._parents[site.start : site.start + count] = numbers
        self._ranks[site.start : site.start + count] = numbers + (
            2**40 if type == NodeType.ORIGIN else 0
        )
        return site

    def site_number(self, ids: Tensor) -> Tensor:
        """Which site every node was made with."""
        if self._starts is None:
            self._starts = torch.tensor(self.starts)
        return torch.searchsorted(self._starts, ids, right=True) - 1

    def find(self, ids: Tensor) -> Tensor:
        """The node that stands for each; -1 stays. Axes of stride 0 stay so."""
        return stand_ins(self.roots(), ids)

    def roots(self) -> np.ndarray:
        """For every node the one that stands for it."""
        parents = self._parents[: len(self)]
        while not self._flat:
            above = parents[parents]
            self._flat = bool((above == parents).all())
            parents[:] = above
        return parents

    def inputs_united(self) -> bool:
        """Whether entries of inputs turned out to be one neuron."""
        inputs = torch.cat([s.ids for s in self.sites if s.type == NodeType.INPUT and s.raw])
        return bool((self.find(inputs) != inputs).any())

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Nodes, pair by pair, are one; the older stands for both, unless it is a mere origin."""
        for _ in range(64):  # each round joins at least one more pair of every chain
            a, b = self.find(left.reshape(-1)).numpy(), self.find(right.reshape(-1)).numpy()
            keep = (a >= 0) & (b >= 0) & (a != b)
            if not keep.any():
                return
            self.unions += 1
            self._flat = False
            a, b = a[keep], b[keep]
            first = self._ranks[a] < self._ranks[b]
            older, younger = np.where(first, a, b), np.where(first, b, a)
            order = self._ranks[older].argsort(kind="stable")[
                ::-1
            ]  # of several the oldest, which is set last
            self._parents[younger[order]] = older[order]
        raise RuntimeError(
            "nodes could not be united"
        )  # pragma: no cover - chains halve each round

    def site_of(self, node: int) -> Site:
        """The site that a node was made with."""
        return self.sites[int(self.site_number(torch.tensor(node)))]

    def sites_of(self, ids: Tensor) -> list[Site]:
        """The sites that some nodes were made with, in the order of their making."""
        nodes = distinct(ids) if ids.numel() else ids.reshape(-1)
        return [self.sites[i] for i in torch.unique(self.site_number(nodes)).tolist()]

    def groups_of(self, ids: Tensor) -> list[str]:
        """For each of some nodes the group that moves it, "" where there is no node."""
        return [self.groups[i] if i >= 0 else "" for i in ids.reshape(-1).tolist()]

    def is_raw(self, ids: Tensor) -> bool:
        """Whether all these nodes are entries of an input that may yet turn out to be one neuron."""
        sites = self.sites_of(ids)
        return bool(sites) and all(site.raw for site in sites)

    def layer(self, ids: Tensor) -> int:
        """The deepest layer among some nodes."""
        return max((site.layer for site in self.sites_of(ids)), default=0)


def stand_ins(roots: np.ndarray, ids: Tensor) -> Tensor:
    """``roots[ids]``, nothing for nothing; axes of stride 0 stay so."""
    small = compact(ids)[0].numpy()
    if not len(roots):
        return ids
    nodes = np.where(small < 0, NONE, roots[np.maximum(small, 0)])
    return torch.from_numpy(nodes).expand(ids.shape)
