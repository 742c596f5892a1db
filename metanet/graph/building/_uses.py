"""Where tensors act: every entry becomes one edge, once; whatever else it does becomes constant
edges.

A tensor lies between two sets of neurons (:meth:`Uses.weight`) or acts on one (:meth:`Uses.attach`)::

    weight     sources ====> destinations        one edge for every entry
    attach     o o o ======> neurons             one source node for each row of the tensor
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ..template._schema import EdgeType, NodeType
from ._contents import Digit, Entries
from ._covered import Covered
from ._feeding import Feeding
from ._ids import (
    NONE,
    are_distinct,
    are_one_to_one,
    compact,
    only_first,
    unique_pairs,
    varying,
)
from ._pool import Pool
from ._use import Use, written_out


class ConstantEdges(NamedTuple):
    """Edges of value 1 between nodes, pair by pair.

    Attributes:
        operand: which operand of an operation they come from; these are kept apart.
    """

    type: EdgeType
    operand: int
    source: Tensor
    destination: Tensor


@dataclass
class Uses:
    """All edges in the making.

    Attributes:
        shapes, names: of every parameter.
        keyed: factors of a parameter that move by what another one says, each with that one.
        of_parameters: the edges of parameters.
        constant: all others.
        covered: entries that have edges.
        module: whose forward is running.
    """

    pool: Pool
    shapes: Mapping[int, tuple[int, ...]]
    names: Mapping[int, str]
    keyed: Mapping[int, Sequence[tuple[Digit, Digit]]] = field(default_factory=dict)
    of_parameters: list[Use] = field(default_factory=list)
    constant: list[ConstantEdges] = field(default_factory=list)
    module: str = ""
    covered: Covered = field(init=False)
    feeding: Feeding = field(init=False)

    def __post_init__(self) -> None:
        self.covered, self.feeding = Covered(self.shapes), Feeding(self.pool)

    def of(self, parameter: int) -> list[Use]:
        """The uses of one parameter."""
        return [use for use in self.of_parameters if use.parameter == parameter]

    def _add(self, entries: Entries, source: Tensor, destination: Tensor, type: EdgeType) -> None:
        use = Use(entries.parameter, entries, source, destination, type, self.module)
        self.of_parameters.append(use)
        self.feeding.note(source, destination, through_tensor=True)

    def connect(
        self, type: EdgeType, source: Tensor, destination: Tensor, operand: int = 0
    ) -> None:
        """Constant edges between nodes, pair by pair."""
        source, destination = compact(*torch.broadcast_tensors(source, destination))
        pairs, _ = unique_pairs(source, destination)
        source, destination = pairs[(pairs >= 0).all(1)].unbind(1)
        if len(source):
            self.constant.append(ConstantEdges(type, operand, source, destination))
            self.feeding.note(source, destination, through_tensor=False)

    # ---------------------------------------------------------------- tensors between two sets

    def weight(self, entries: Entries, source: Tensor, destination: Tensor, type: EdgeType) -> None:
        """A tensor between two sets of neurons; all three of one shape.

        Entries that have edges already are the same weights at work again. Where they read the same
        neurons again, or where a module reads neurons that it feeds itself (a recurrent network),
        the results are the same neurons, too; else new ones that are tied to the old. Where one
        entry joins several pairs, nodes that stand for all of them come between.
        """
        source, destination = self.pool.find(source), self.pool.find(destination)
        name = self.names[entries.parameter]
        # a kernel entry w[o, i] slides over places p: idle = {p}. If the sources differ along p,
        #     s(i, p1) --\
        #     s(i, p2) ---> share(i) ==w[o, i]==> d(o)
        idle = set(range(entries.ids.ndim)).difference(varying(entries.ids))
        if several := idle.intersection(varying(source)):
            source = self._share(source, several, name, outwards=False)
        if several := idle.intersection(varying(destination)):
            destination = self._share(destination, several, name)
        source, destination = only_first(source, idle), only_first(destination, idle)
        entries = replace(entries, ids=only_first(entries.ids, idle), hidden={})
        if not entries.strided and not are_distinct(entries.ids):
            entries = self._once(entries, destination)
        fresh = self.covered.take(entries)
        if fresh is not None:
            self._add(fresh, source, destination, type)
        else:
            self._again(entries, source, destination)

    def _once(self, entries: Entries, destination: Tensor) -> Entries:
        """Entries where they appear first; neurons that they reach elsewhere are tied to those.

        Entries ``a b a`` to the nodes ``1 2 3`` are ``a b -``, and 3 is tied to 1.
        """
        ids = entries.ids.reshape(-1)
        nodes = destination.expand(entries.ids.shape).reshape(-1)
        places = torch.arange(len(ids))
        unique, inverse = torch.unique(ids, return_inverse=True)
        last = torch.full((len(unique),), len(ids))
        first = last.scatter_reduce(0, inverse, places, "amin")[inverse]
        is_later = (first != places) & (ids >= 0)
        differ = is_later & (nodes != nodes[first])
        self.connect(EdgeType.TIED, nodes[first][differ], nodes[differ])
        return replace(entries, ids=torch.where(is_later, NONE, ids).view(entries.ids.shape))

    def _again(self, entries: Entries, source: Tensor, destination: Tensor) -> None:
        """Entries that are at work a second time: the same neurons again, or some that are tied to
        those."""
        for use in self.of(entries.parameter):
            source_ids, source_now = written_out(entries, source)
            destination_ids, destination_now = written_out(entries, destination)
            before = _Ends(*map(self.pool.find, use.ends(source_ids)))
            behind = _Ends(*map(self.pool.find, use.ends(destination_ids)))
            source_now, destination_now = map(self.pool.find, (source_now, destination_now))
            if not ((before.source >= 0).any() and (behind.destination >= 0).any()):
                continue
            if self._is_same(use, before.source, source_now, behind.destination, destination_now):
                self.pool.unite(source_now, before.source)
                self.pool.unite(destination_now, behind.destination)
            elif are_one_to_one(destination_now, behind.destination):
                self._tie(use, entries, destination)
            elif are_one_to_one(destination_now, behind.source):  # it runs the other way round
                self.connect(EdgeType.TIED, behind.source, destination_now)
            else:
                self._tie(use, entries, destination)

    def _is_same(
        self,
        use: Use,
        source: Tensor,
        source_now: Tensor,
        destination: Tensor,
        destination_now: Tensor,
    ) -> bool:
        """Whether what a weight reads and makes now are the neurons that it read and made then."""
        if not are_one_to_one(source_now, source):
            return False
        if not are_one_to_one(destination_now, destination):
            return False
        if not (_no_clash(destination_now, destination) and _no_clash(source_now, source)):
            return False
        if self._is_origin(source) or self._is_origin(source_now):
            return True
        if use.module == self.module and self.feeding.feeds(destination, source_now):
            return True
        return bool((source_now == source).all())

    def _tie(self, use: Use, entries: Entries, nodes: Tensor) -> None:
        """Every node that entries went to is tied to the one that they go to now, which may be one
        for many."""
        ids, now = written_out(entries, nodes, use)
        _, then = use.ends(ids)
        then = self.pool.find(then)
        if (then >= 0).any():
            self.connect(EdgeType.TIED, then, self.pool.find(now))

    def _is_origin(self, ids: Tensor) -> bool:
        return all(site.type == NodeType.ORIGIN for site in self.pool.sites_of(ids))

    # ---------------------------------------------------------------- tensors that act on one set

    def attach(self, entries: Entries, neurons: Tensor, node: NodeType, edge: EdgeType) -> None:
        """A tensor aligned with neurons (of the shape of its entries): from source nodes of its
        own, one per row.

        Where one entry acts on several neurons, a node that stands for all of them comes between::

            bias b of 3 neurons       o ==b==> (3)            entries move with the neurons: one source
            table T of 2 rows         o =T[0]=> (3)           rows that do not: one source for each
                                      o =T[1]=> (3)
            scale s of all 3          o ==s==> share --> (3)
        """
        neurons = self.pool.find(neurons)
        for axis, digit in entries.hidden.items():
            entries = entries.with_axis(axis, digit)
            neurons = neurons.unsqueeze(0).expand(digit.size, *neurons.shape)
        moving, own = set(varying(neurons)), set(varying(entries.ids))
        idle = set(range(neurons.ndim)) - moving - own
        ids, neurons = only_first(entries.ids, idle), only_first(neurons, idle)
        if not entries.strided and not are_distinct(ids):
            ids, neurons = self._each_once(ids, neurons)
            moving, own = {1}, ({0, 1} if len(ids) > 1 else {1})
        if several := moving - own:
            neurons = self._share(neurons, several, self.names[entries.parameter])
            ids, neurons = only_first(ids, several), only_first(neurons, several)
        entries = replace(entries, ids=ids, hidden={})
        rows = sorted(own - moving)
        rows += self.key_axes(entries, rows)
        fresh = self.covered.take(entries)
        if fresh is None:
            for use in self.of(entries.parameter):
                self._tie(use, entries, neurons)
            return
        sizes = [n if axis in rows else 1 for axis, n in enumerate(ids.shape)]
        source, is_table = self._sources(entries, sizes, neurons, node)
        type = EdgeType.TABLE if is_table and edge == EdgeType.BIAS else edge
        self._add(fresh, source.expand(ids.shape), neurons.expand(ids.shape), type)

    def _sources(
        self, entries: Entries, sizes: Sequence[int], neurons: Tensor, node: NodeType
    ) -> tuple[Tensor, bool]:
        """A source node for each row of a tensor, and whether there are several."""
        count = prod(sizes)
        layer = 0 if node == NodeType.INPUT else self.pool.layer(neurons)
        type = NodeType.ROW if count > 1 and node == NodeType.BIAS else node
        site = self.pool.new(self.names[entries.parameter], count, type, layer)
        return site.ids.view(sizes), count > 1

    def key_axes(self, entries: Entries, rows: Sequence[int]) -> list[int]:
        """Axes besides those of the rows by which rows move: then there is a source node for each
        of their items."""
        if not entries.strided:
            return []
        x = entries.ids

        def overlaps(axis: int, digit: Digit) -> bool:
            low, high = x.stride(axis), x.stride(axis) * x.shape[axis]
            return x.shape[axis] > 1 and low < digit.step * digit.size and digit.step < high

        keys: set[int] = set()
        for moving, key in self.keyed.get(entries.parameter, ()):
            if any(overlaps(row, moving) for row in rows):
                keys.update(axis for axis in range(x.ndim) if overlaps(axis, key))
        return sorted(keys.difference(rows))

    # ---------------------------------------------------------------- nodes that stand for several

    def _share(
        self, neurons: Tensor, several: set[int], name: str, outwards: bool = True
    ) -> Tensor:
        """One node for all neurons along some axes."""
        one = only_first(neurons, several)
        apart = varying(one)
        sizes = [n if axis in apart else 1 for axis, n in enumerate(one.shape)]
        count = prod(sizes)
        groups = self.pool.groups_of(one)
        if len(several) == len(varying(neurons)):
            groups = [""] * len(groups)
        site = self.pool.new(name, count, NodeType.SHARED, self.pool.layer(neurons), groups[:count])
        shared = site.ids.view(sizes).expand(one.shape).expand(neurons.shape)
        ends = (shared, neurons) if outwards else (neurons, shared)
        self.connect(EdgeType.SHARE, *ends)
        return shared

    def _each_once(self, ids: Tensor, neurons: Tensor) -> tuple[Tensor, Tensor]:
        """Entries that appear at several places: once each, and the node that stands for the places.

        Entry 4 acts on the neurons 7 and 8, entries 5 and 6 on 9::

            entries   4 5        nodes  s 9        s: a new node, shared by 7 and 8
                      - 6               s 9
        """
        pairs, _ = unique_pairs(ids, neurons.expand(ids.shape))
        pairs = pairs[(pairs >= 0).all(1)]
        entries, counts = torch.unique_consecutive(pairs[:, 0], return_counts=True)
        places = [tuple(nodes.tolist()) for nodes in pairs[:, 1].split(counts.tolist())]
        shared = self._shared_by([nodes for nodes in places if len(nodes) > 1], neurons)
        columns: dict[int, list[int]] = {}
        for entry, nodes in zip(entries.tolist(), places, strict=True):
            columns.setdefault(shared.get(nodes, nodes[0]), []).append(entry)
        grid = torch.full((max(map(len, columns.values()), default=1), len(columns)), NONE)
        for number, column in enumerate(columns.values()):
            grid[: len(column), number] = torch.tensor(column)
        return grid, torch.tensor(list(columns)).expand(grid.shape)

    def _shared_by(
        self, sets: Iterable[tuple[int, ...]], neurons: Tensor
    ) -> dict[tuple[int, ...], int]:
        """A node for each of several sets of neurons."""
        unique = list(dict.fromkeys(sets))
        site = self.pool.new("shared", len(unique), NodeType.SHARED, self.pool.layer(neurons))
        nodes = dict(zip(unique, site.ids.tolist(), strict=True))
        ends = [(node, neuron) for members, node in nodes.items() for neuron in members]
        if ends:
            shared, own = torch.tensor(ends).unbind(1)
            self.connect(EdgeType.SHARE, shared, own)
        return nodes


class _Ends(NamedTuple):
    """Where entries come from and where they go to."""

    source: Tensor
    destination: Tensor


def _no_clash(left: Tensor, right: Tensor) -> bool:
    """Whether making them one, pair by pair, makes no two neurons of one set the same."""
    shared = torch.isin(left, right) | torch.isin(right, left)
    return bool((left[shared] == right[shared]).all())
