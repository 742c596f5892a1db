"""Where tensors act: every entry becomes one edge, once; whatever else it does becomes constant
edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from ._flows import Entries, compact, distinct, unique_pairs, varies
from ._pool import Pool
from ..template._schema import EdgeType, NodeType

# how a tensor that is aligned with neurons acts on them: type of its source node, and of its edges
ROLES_OF_VECTORS = {
    "bias": (NodeType.BIAS, EdgeType.BIAS),
    "shift": (NodeType.BIAS, EdgeType.SHIFT),
    "scale": (NodeType.SCALE, EdgeType.SCALE),
    "mean": (NodeType.MEAN, EdgeType.MEAN),
    "variance": (NodeType.VARIANCE, EdgeType.VARIANCE),
    "other": (NodeType.ENTRYWISE, EdgeType.ENTRYWISE),
}

Factor = tuple[int, int]
"""A factor of a parameter's axes: its step in the parameter's own order, and its size."""


@dataclass
class Use:
    """Entries of a parameter and their ends, all three over the same axes."""

    parameter: int
    entries: Entries
    source: Tensor
    destination: Tensor
    type: EdgeType
    module: str = ""

    def ends(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Source and destination of some entries, -1 where they have none."""
        if self.entries.strided:
            x = self.entries.ids
            rest = entries - x.storage_offset()
            inside = rest >= 0
            index: list[Tensor] = [torch.zeros_like(entries)] * x.ndim
            for axis in sorted(range(x.ndim), key=lambda a: -x.stride(a)):
                if x.shape[axis] > 1 and x.stride(axis):
                    index[axis] = rest // x.stride(axis)
                    rest = rest - index[axis] * x.stride(axis)
                    inside &= index[axis] < x.shape[axis]
            inside &= rest == 0
            index = [torch.where(inside, i, 0) for i in index]
            sides = (self.source, self.destination)
            ends = [side[tuple(index)] if index else side.expand_as(entries) for side in sides]
        else:
            order = self.entries.ids.reshape(-1).argsort()
            own = self.entries.ids.reshape(-1)[order]
            at = torch.searchsorted(own, entries.contiguous()).clamp(max=len(own) - 1)
            inside = own[at] == entries
            ends = [side.reshape(-1)[order[at]] for side in (self.source, self.destination)]
        return torch.where(inside, ends[0], -1), torch.where(inside, ends[1], -1)

    def tells_apart(self, entries: Entries, axis: int) -> bool:
        """Whether the items of an axis of entries (the first ones along all others) go to different
        nodes."""
        if not varies(entries.ids, axis):
            return False
        first = tuple(slice(None) if a == axis else slice(0, 1) for a in range(entries.ids.ndim))
        nodes = self.ends(replace(entries, ids=entries.ids[first]).real().ids.reshape(-1))[1]
        return len(torch.unique(nodes[nodes >= 0])) > 1


@dataclass
class Uses:
    """All edges in the making."""

    pool: Pool
    shapes: Mapping[int, tuple[int, ...]]  # of every parameter
    names: Mapping[int, str]
    found: list[Use] = field(default_factory=list)
    constant: list[tuple[EdgeType, int, Tensor, Tensor]] = field(default_factory=list)
    keyed: Mapping[int, Sequence[tuple[Factor, Factor]]] = field(default_factory=dict)
    covered: dict[int, Tensor] = field(default_factory=dict)
    module: str = ""  # whose forward is running
    _above: dict[int, set[int]] = field(
        default_factory=dict
    )  # sites that feed a site through tensors
    _beside: dict[int, set[int]] = field(default_factory=dict)  # and without

    # ---------------------------------------------------------------- constant edges

    def connect(
        self, type: EdgeType, source: Tensor, destination: Tensor, operand: int = 0
    ) -> None:
        """Constant edges between nodes, pair by pair; those of several operands are kept apart."""
        source, destination = compact(*torch.broadcast_tensors(source, destination))
        pairs, _ = unique_pairs(source, destination)
        pairs = pairs[(pairs >= 0).all(1)]
        if len(pairs):
            self.constant.append((type, operand, pairs[:, 0], pairs[:, 1]))
            self._note(self._beside, pairs[:, 0], pairs[:, 1])

    def _note(self, above: dict[int, set[int]], source: Tensor, destination: Tensor) -> None:
        sites = self._sites(source)
        for site in self._sites(destination):
            above.setdefault(site, set()).update(sites)

    def _sites(self, nodes: Tensor) -> set[int]:
        return set(torch.unique(self.pool.site_number(distinct(nodes))).tolist())

    def feeds(self, first: Tensor, last: Tensor, weights: bool = True) -> bool:
        """Whether some of the first nodes feed some of the last, over any number of sites."""
        goal, todo = self._sites(first), self._sites(last)
        seen: set[int] = set()
        while todo:
            site = todo.pop()
            if site in goal:
                return True
            seen.add(site)
            todo |= self._beside.get(site, set()) - seen
            if weights:
                todo |= self._above.get(site, set()) - seen
        return False

    # ---------------------------------------------------------------- tensors between two sets of
    # neurons

    def weight(self, entries: Entries, source: Tensor, destination: Tensor, type: EdgeType) -> None:
        """A tensor between two sets of neurons; all three of one shape.

        Entries that have edges already are the same weights at work again. Where they read the same
        neurons again, or where a module reads neurons that it feeds itself (a recurrent network),
        the results are the same neurons, too; else new ones that are tied to the old. Where one
        entry joins several pairs, nodes that stand for all of them come between.
        """
        source, destination = self.pool.find(source), self.pool.find(destination)
        rank = range(entries.ids.ndim)
        idle = [a for a in rank if not varies(entries.ids, a)]
        name = self.names[entries.parameter]
        if several := [a for a in idle if varies(source, a)]:
            source = self._share(source, several, name, outwards=False)
        if several := [a for a in idle if varies(destination, a)]:
            destination = self._share(destination, several, name)
        keep = tuple(slice(0, 1) if a in idle else slice(None) for a in rank)
        entries = replace(entries, ids=entries.ids[keep], hidden={})
        source, destination = source[keep], destination[keep]
        if not entries.strided and not _each_once(entries.ids):
            entries = self._once(entries, destination)
        fresh = self._new(entries)
        if fresh is not None:
            self._add(Use(entries.parameter, fresh, source, destination, type))
        else:
            self._again(entries, source, destination)

    def _once(self, entries: Entries, destination: Tensor) -> Entries:
        """Entries where they appear first; neurons that they reach elsewhere are tied to those."""
        ids, nodes = entries.ids.reshape(-1), destination.expand(entries.ids.shape).reshape(-1)
        own, inverse = torch.unique(ids, return_inverse=True)
        first = torch.full((len(own),), len(ids)).scatter_reduce(
            0, inverse, torch.arange(len(ids)), "amin"
        )[inverse]
        later = (first != torch.arange(len(ids))) & (ids >= 0)
        differ = later & (nodes != nodes[first])
        self.connect(EdgeType.TIED, nodes[first][differ], nodes[differ])
        return replace(entries, ids=torch.where(later, -1, ids).view(entries.ids.shape))

    def _add(self, use: Use) -> None:
        use.module = self.module
        self.found.append(use)
        self._note(self._above, use.source, use.destination)

    def _new(self, entries: Entries) -> Entries | None:
        """The entries that have no edges yet, -1 elsewhere; ``None`` if there are none. They count
        as covered now."""
        parameter = entries.parameter
        count = prod(self.shapes[parameter])
        covered = self.covered.get(parameter)
        x = entries.ids
        if (
            covered is None
            and entries.strided
            and prod(n for n, s in zip(x.shape, x.stride(), strict=True) if s) == count
        ):
            self.covered[parameter] = torch.ones((), dtype=torch.bool).expand(
                count
            )  # all of it: no byte per entry
            return entries
        if covered is None:
            covered = self.covered[parameter] = torch.zeros(count, dtype=torch.bool)
        if covered.stride() == (0,):  # all entries are, or there is only one
            return None if covered.all() else self._mark(entries, covered)
        if entries.strided:
            window = covered.as_strided(x.shape, x.stride(), x.storage_offset())
            if not window.any():
                window.fill_(True)
                return entries
            if window.all():
                return None
        return self._mark(entries, covered)

    def _mark(self, entries: Entries, covered: Tensor) -> Entries | None:
        ids = entries.real().ids
        mask = (ids >= 0) & ~covered[ids.clamp(min=0)]
        if not mask.any():
            return None
        covered[ids[mask]] = True
        return Entries(entries.parameter, torch.where(mask, ids, -1))

    def _again(self, entries: Entries, source: Tensor, destination: Tensor) -> None:
        pool = self.pool
        for use in [u for u in self.found if u.parameter == entries.parameter]:
            sides = []
            for now in (source, destination):
                ids, now_c = _along(entries, now)
                before = use.ends(ids)
                sides.append((pool.find(now_c), tuple(pool.find(b) for b in before)))
            (s_now, (s_then, _)), (d_now, (d_from, d_then)) = sides
            if not ((s_then >= 0).any() and (d_then >= 0).any()):
                continue
            same = one_to_one(s_now, s_then) and one_to_one(d_now, d_then)
            if same and _no_clash(d_now, d_then) and _no_clash(s_now, s_then):
                origin = self._is_origin(s_then) or self._is_origin(s_now)
                again = use.module == self.module and self.feeds(d_then, s_now)
                if origin or again or bool((s_now == s_then).all()):
                    pool.unite(s_now, s_then)
                    pool.unite(d_now, d_then)
                    continue
            if one_to_one(d_now, d_then) or not one_to_one(d_now, d_from):
                self._tie(use, entries, destination)
            else:
                self.connect(EdgeType.TIED, d_from, d_now)

    def _tie(self, use: Use, entries: Entries, nodes: Tensor) -> None:
        """Every node that entries went to is tied to the one that they go to now, which may be one
        for many."""
        ids, now = _along(entries, nodes, use)
        then = self.pool.find(use.ends(ids)[1])
        if (then >= 0).any():
            self.connect(EdgeType.TIED, then, self.pool.find(now))

    def _is_origin(self, ids: Tensor) -> bool:
        return all(self.pool.sites[i].type == NodeType.ORIGIN for i in self._sites(ids))

    # ---------------------------------------------------------------- tensors that act on one set
    # of neurons

    def attach(self, entries: Entries, neurons: Tensor, node: NodeType, edge: EdgeType) -> None:
        """A tensor aligned with neurons (of the shape of its entries): from source nodes of its
        own, one per row.

        Where one entry acts on several neurons, a node that stands for all of them comes between.
        """
        neurons = self.pool.find(neurons)
        for key, (size, step) in entries.hidden.items():
            entries = with_axis(entries, key, size, step)
            neurons = neurons.unsqueeze(0).expand(size, *neurons.shape)
        moving = [a for a in range(neurons.ndim) if varies(neurons, a)]
        own = [a for a in range(neurons.ndim) if varies(entries.ids, a)]
        keep = tuple(
            slice(None) if a in own or a in moving else slice(0, 1) for a in range(neurons.ndim)
        )
        ids, neurons = entries.ids[keep], neurons[keep]
        if not entries.strided and not _each_once(ids):
            ids, neurons, own, moving = self._one_axis(ids, neurons)
        several = [a for a in moving if a not in own]
        moving = [a for a in moving if a in own]
        if several:
            neurons = self._share(neurons, several, self.names[entries.parameter])
            first = tuple(slice(0, 1) if a in several else slice(None) for a in range(ids.ndim))
            ids, neurons = ids[first], neurons[first]
        rows = [a for a in own if a not in moving]
        rows += self.key_axes(replace(entries, ids=ids, hidden={}), rows)
        sizes = [ids.shape[a] if a in rows else 1 for a in range(ids.ndim)]
        fresh = self._new(replace(entries, ids=ids, hidden={}))
        if fresh is None:
            self._attached_again(replace(entries, ids=ids, hidden={}), neurons)
            return
        count = prod(sizes)
        layer = 0 if node == NodeType.INPUT else self.pool.layer(neurons)
        kind = NodeType.ROW if count > 1 and node == NodeType.BIAS else node
        kind_edge = EdgeType.TABLE if count > 1 and edge == EdgeType.BIAS else edge
        site = self.pool.new(self.names[entries.parameter], count, kind, layer)
        source = site.ids.view(sizes).expand(ids.shape)
        self._add(Use(entries.parameter, fresh, source, neurons.expand(ids.shape), kind_edge))

    def key_axes(self, entries: Entries, rows: Sequence[int]) -> list[int]:
        """Axes besides those of the rows by which rows move: then there is a source node for each
        of their items."""
        x = entries.ids
        if not entries.strided:
            return []

        def axes(factor: Factor) -> list[int]:
            step, size = factor
            ends = [(x.stride(a), x.stride(a) * x.shape[a]) for a in range(x.ndim)]
            return [
                a
                for a, (low, high) in enumerate(ends)
                if x.shape[a] > 1 and low < step * size and step < high
            ]

        pairs = self.keyed.get(entries.parameter, ())
        wanted = {a for moves, key in pairs if set(axes(moves)) & set(rows) for a in axes(key)}
        return sorted(wanted - set(rows))

    def _attached_again(self, entries: Entries, neurons: Tensor) -> None:
        for use in [u for u in self.found if u.parameter == entries.parameter]:
            self._tie(use, entries, neurons)

    def _share(
        self, neurons: Tensor, several: Sequence[int], name: str, outwards: bool = True
    ) -> Tensor:
        """One node for all neurons along some axes."""
        kept = neurons[
            tuple(slice(0, 1) if a in several else slice(None) for a in range(neurons.ndim))
        ]
        sizes = [n if varies(kept, a) else 1 for a, n in enumerate(kept.shape)]
        groups = [self.pool.groups[i] if i >= 0 else "" for i in kept.reshape(-1).tolist()]
        if len(several) == sum(varies(neurons, a) for a in range(neurons.ndim)):
            groups = [""] * len(groups)
        count = prod(sizes)
        site = self.pool.new(name, count, NodeType.SHARED, self.pool.layer(neurons), groups[:count])
        shared = site.ids.view(sizes).expand(kept.shape)
        ends = shared.expand(neurons.shape), neurons
        self.connect(EdgeType.SHARE, *(ends if outwards else ends[::-1]))
        return shared.expand(neurons.shape)

    def _one_axis(
        self, ids: Tensor, neurons: Tensor
    ) -> tuple[Tensor, Tensor, list[int], list[int]]:
        """Entries that appear at several places: once each, and the node that stands for the
        places."""
        pairs, _ = unique_pairs(ids, neurons.expand(ids.shape))
        pairs = pairs[(pairs >= 0).all(1)]
        entries, counts = torch.unique_consecutive(pairs[:, 0], return_counts=True)
        keys = [tuple(chosen.tolist()) for chosen in pairs[:, 1].split(counts.tolist())]
        several = list(dict.fromkeys(k for k in keys if len(k) > 1))
        site = self.pool.new("shared", len(several), NodeType.SHARED, self.pool.layer(neurons))
        targets = dict(zip(several, site.ids.tolist(), strict=True))
        if several:
            ends = torch.tensor(list(targets.values())).repeat_interleave(
                torch.tensor([len(k) for k in several])
            )
            self.connect(EdgeType.SHARE, ends, torch.tensor([n for k in several for n in k]))
        out = [targets.get(k, k[0]) for k in keys]
        rank: dict[int, int] = {}
        places = []
        for node in out:
            places.append(rank.get(node, 0))
            rank[node] = places[-1] + 1
        grid = torch.full((max(places, default=0) + 1, len(rank)), -1)
        number = {node: i for i, node in enumerate(rank)}
        for entry, node, row in zip(entries.tolist(), out, places, strict=True):
            grid[row, number[node]] = entry
        columns = torch.tensor(list(rank)).expand(grid.shape)
        return grid, columns, [0, 1] if grid.shape[0] > 1 else [1], [1]


def with_axis(entries: Entries, key: int, size: int, step: int) -> Entries:
    """A hidden axis made the first of the value's."""
    hidden = {k: v for k, v in entries.hidden.items() if k != key}
    x = entries.ids
    if entries.strided:
        last = sum((n - 1) * s for n, s in zip((size, *x.shape), (step, *x.stride()), strict=True))
        base = torch.empty(x.storage_offset() + last + 1, dtype=torch.long, device="meta")
        ids = base.as_strided((size, *x.shape), (step, *x.stride()), x.storage_offset())
    else:
        more = torch.arange(size).view(-1, *(1,) * x.ndim) * step
        ids = torch.where(x < 0, -1, x + more)
    return replace(entries, ids=ids, hidden=hidden)


def explicit(
    entries: Entries, source: Tensor, destination: Tensor,
    hidden_source: Mapping[int, tuple[int, int]], hidden_destination: Mapping[int, tuple[int, int]],
) -> tuple[Entries, Tensor, Tensor]:  # fmt: skip
    """Hidden axes made axes of all three."""
    for key, (size, step) in entries.hidden.items():
        entries = with_axis(entries, key, size, step)
        more = torch.arange(size).view(-1, *(1,) * source.ndim)
        shape = (size, *source.shape)
        source = (
            source.expand(shape) + more * hidden_source[key][1]
            if key in hidden_source
            else source.expand(shape)
        )
        if key in hidden_destination:
            destination = destination.expand(shape) + more * hidden_destination[key][1]
        else:
            destination = destination.expand(shape)
    return entries, source, destination


def _along(entries: Entries, nodes: Tensor, use: Use | None = None) -> tuple[Tensor, Tensor]:
    """Entries and nodes along those axes along which the nodes differ (or those of another use),
    written out."""
    differ = [
        varies(nodes, a) or (use is not None and use.tells_apart(entries, a))
        for a in range(nodes.ndim)
    ]
    keep = tuple(slice(None) if d else slice(0, 1) for d in differ)
    ids, nodes = replace(entries, ids=entries.ids[keep], hidden={}).real().ids, nodes[keep]
    chosen = ids.reshape(-1) >= 0
    return ids.reshape(-1)[chosen], nodes.reshape(-1)[chosen]


def _each_once(ids: Tensor) -> bool:
    found = ids[ids >= 0]
    return len(torch.unique(found)) == len(found)


def one_to_one(left: Tensor, right: Tensor) -> bool:
    if not ((left >= 0) & (right >= 0)).all():
        return False
    return len(unique_pairs(left, right)[0]) == len(torch.unique(left)) == len(torch.unique(right))


def _no_clash(left: Tensor, right: Tensor) -> bool:
    """Whether making them one, pair by pair, makes no two neurons of one set the same."""
    shared = torch.isin(left, right) | torch.isin(right, left)
    return bool((left[shared] == right[shared]).all())
