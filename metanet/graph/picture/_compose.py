"""Choosing what a picture of a parameter graph shows, and placing it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from ...errors import MetanetError
from ..template._template import GraphTemplate, NodeRange
from ._columns import Layout, arrange, seats
from ._picture import Picture, Place, Strokes
from ._rows import Row, cut, number_of

MAX_EDGES = 4000

_MARGIN = 0.55
_TOP = 0.1
_LINE = 0.165  # height of a line of text, of 10 points
_STEP = 0.17  # between the source nodes beside a range
_IN_A_ROW = 5  # source nodes above a dot
_WHOLE_AT = 48, 30  # with more ranges or more columns than this every range is one dot


def compose(
    graph: Data, template: GraphTemplate, max_edges: int = MAX_EDGES, max_neurons: int | None = None
) -> Picture:
    """Decide what is shown of a graph.

    Args:
        graph: one parameter graph of the template; its nodes may be in another order.
        max_edges: at most so many edges are drawn one by one, shared out evenly among the tensors.
        max_neurons: at most so many dots per range; ``None``: as many as look well, and one for
            each range where there are more than 48 of them or 30 columns.

    Raises:
        MetanetError: the graph is not of this template, or a number is not positive.
    """
    if max_edges < 1 or (max_neurons is not None and max_neurons < 1):
        raise MetanetError(f"max_edges={max_edges} and max_neurons={max_neurons} must be 1 or more")
    if graph.edge_attr.shape[0] != template.num_edges or graph.num_nodes != template.num_nodes:
        raise MetanetError(
            f"the graph has {graph.num_nodes} nodes and {graph.edge_attr.shape[0]} edges, "
            f"its template {template.num_nodes} and {template.num_edges}"
        )
    column, hosts, _ = seats(template)
    sites, columns = len(column), len(set(column.values()))
    whole = max_neurons is None and (sites > _WHOLE_AT[0] or columns > _WHOLE_AT[1])
    limit = 1 if whole else max_neurons or (32 if sites <= 8 else 16 if sites <= 20 else 10)
    shown = [1 if whole else min(limit, r.count) for r in template.nodes]
    slot = 0.13 if max(shown, default=1) > 20 else 0.16
    spacing = 0.95 if whole else 1.9 if sites <= 8 else 1.6
    halves = [
        0.08 if whole else _half(n, r, slot) for n, r in zip(shown, template.nodes, strict=True)
    ]
    part = {
        b.destination: b.type.name.lower()
        for b in template.blocks
        if b.type.name in ("QUERY", "KEY", "VALUE")
    }
    labels = [
        _label(r, n, whole, part.get(i, ""))
        for i, (n, r) in enumerate(zip(shown, template.nodes, strict=True))
    ]
    counted = Counter(hosts.values())
    sides = [counted[i] for i in range(len(template.nodes))]
    above = [
        h + (0.2 + 0.11 * -(-n // _IN_A_ROW) if whole else 0.16)
        for h, n in zip(halves, sides, strict=True)
    ]
    below = [
        h + max(len(text) * _LINE, 0 if whole else n * _STEP) + 0.2
        for h, text, n in zip(halves, labels, sides, strict=True)
    ]
    lane = 0.06 if whole else 0.16
    layout = arrange(template, above, below, lane)
    tops, bottoms = _extents(layout, above, below, lane)
    rows, height = cut(tops, bottoms, _MARGIN, spacing, _TOP)
    places, spots, ribbon = _seat(
        template, layout, rows, height, shown, halves, labels, slot, spacing, whole
    )
    strokes, drawn, nonfinite = _strokes(
        graph, template, layout, places, spots, spacing, whole, max_edges
    )
    deepest = max((p.y + p.half for p in places if p.kind == "loose"), default=0.0) + 2 * _LINE
    return Picture(
        template=template,
        width=rows[0].stop - rows[0].start + 2 * _MARGIN,
        height=max(height, deepest),
        spacing=spacing,
        whole=whole,
        places=tuple(places),
        spots=spots,
        ribbon=ribbon,
        rows=rows,
        strokes=tuple(strokes),
        drawn=drawn,
        total=template.num_edges,
        nonfinite=nonfinite,
    )


def _extents(
    layout: Layout, above: Sequence[float], below: Sequence[float], lane: float
) -> tuple[list[float], list[float]]:
    """The top and the bottom of every column, on the ribbon."""
    tops, bottoms = [[layout.height]] * layout.columns, [[0.0]] * layout.columns
    for i, column in layout.column.items():
        tops[column] = [*tops[column], layout.y[i] - above[i]]
        bottoms[column] = [*bottoms[column], layout.y[i] + below[i]]
    for (_, column), y in layout.lanes.items():
        tops[column] = [*tops[column], y - lane]
        bottoms[column] = [*bottoms[column], y + lane]
    return list(map(min, tops)), list(map(max, bottoms))


def _half(shown: int, r: NodeRange, slot: float) -> float:
    return (shown - 1 + (shown < r.count)) * slot / 2 + 0.06


def _label(r: NodeRange, shown: int, whole: bool, part: str) -> tuple[str, ...]:
    """The name, broken at its dots, then how many neurons, which part of attention they are, and
    what follows them."""
    room = 10 if whole else 17
    lines = [""]
    for word in r.name.removesuffix(".weight").replace(".", ".\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(word) > room:
            lines.append("")
        lines[-1] += word
    lines = lines if len(lines) <= 3 else [f"…{lines[-2]}", lines[-1]]
    count = f"{r.width or r.count:,}" if whole or shown == r.count else f"{shown} of {r.count:,}"
    return (
        *lines,
        " ".join(filter(None, [count, part, "" if r.activation == "none" else r.activation])),
    )


def _seat(
    template: GraphTemplate,
    layout: Layout,
    rows: Sequence[Row],
    height: float,
    shown: Sequence[int],
    halves: Sequence[float],
    labels: Sequence[tuple[str, ...]],
    slot: float,
    spacing: float,
    whole: bool,
) -> tuple[list[Place], np.ndarray, np.ndarray]:
    """The places of all ranges, their dots on the page, and their dots on the ribbon."""
    places: list[Place] = []
    dots: list[Any] = []
    shifts: list[Any] = []
    wide = rows[0].stop - rows[0].start
    beside: Counter[int] = Counter()
    sides = Counter(layout.hosts.values())
    for i, r in enumerate(template.nodes):
        if i in layout.hosts:
            host = layout.hosts[i]
            kind, k = "side", beside[host]
            beside[host] += 1
            x, y = _MARGIN + spacing * (layout.column[host] + 0.5), layout.y[host]
            if whole:  # in a row above it
                line, k = divmod(k, _IN_A_ROW)
                across = min(_IN_A_ROW, sides[host] - line * _IN_A_ROW)
                x, y = x + 0.11 * (k - (across - 1) / 2), y - halves[host] - 0.2 - 0.11 * line
            else:
                x, y = x - 0.4 * spacing, y + halves[host] + 0.1 + _STEP * k
        elif i in layout.column:
            kind, x, y = "site", _MARGIN + spacing * (layout.column[i] + 0.5), layout.y[i]
        else:
            k = layout.loose.index(i)
            across = max(1, int(wide / 0.5))
            kind, x = "loose", _MARGIN + 0.5 * (k % across) + 0.1
            y = height + 0.3 + 0.3 * (k // across)
        row = rows[number_of(rows, x)]
        left, down = (0.0, 0.0) if kind == "loose" else (row.left, row.down)
        first, n = len(dots), shown[i]
        cut = n < r.count and not whole and kind == "site"
        for k, neuron in enumerate(np.linspace(0, r.count - 1, n).round().astype(int)):
            gap = 0.0 if not cut else 0.5 if 2 * k >= n else -0.5
            all_in_one = (whole or kind != "site") and r.count > 1
            dots.append((x, y + (k - (n - 1) / 2 + gap) * slot, i, -1 if all_in_one else neuron))
            shifts.append((left, down))
            if kind != "site":
                break
        half = halves[i] if kind == "site" else 0.05
        places.append(
            Place(
                number=i,
                x=x + left,
                y=y + down,
                along=x,
                across=y,
                half=half,
                spots=range(first, len(dots)),
                label=labels[i],
                kind=kind,
            )
        )
    spots = np.array(dots, dtype=float).reshape(-1, 4)
    ribbon = spots[:, :2].copy()
    spots[:, :2] += np.array(shifts, dtype=float).reshape(-1, 2)
    return places, spots, ribbon


# ---------------------------------------------------------------- edges


@dataclass
class _Candidates:
    """The edges of one block between neurons that are shown."""

    block: int
    edges: Tensor
    ends: Tensor
    values: Tensor


def _strokes(
    graph: Data,
    template: GraphTemplate,
    layout: Layout,
    places: Sequence[Place],
    spots: np.ndarray,
    spacing: float,
    whole: bool,
    max_edges: int,
) -> tuple[list[Strokes], int, int]:
    index, values = graph.edge_index, graph.edge_attr.detach().reshape(template.num_edges, -1)[:, 0]
    site = graph.node_site
    if not bool(
        (site[1:] >= site[:-1]).all()
    ):  # nodes in another order: ranges one after the other again
        order = torch.argsort(site, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        index = place[index]
    spot_of = torch.full((template.num_nodes,), -1)
    for place_ in places:
        for spot in place_.spots:
            if spots[spot, 3] >= 0:
                spot_of[template.nodes[place_.number].start + int(spots[spot, 3])] = spot
    found: list[_Candidates] = []
    bundled: list[int] = []
    norms: list[float] = []
    nonfinite = 0
    for number, block in enumerate(template.blocks):
        edges = block.edges()
        own = values[edges.to(values.device)].cpu()
        finite = own.isfinite()
        nonfinite += int((~finite).sum())
        norms.append(float(own[finite].double().norm()))
        if places[block.source].kind == "loose" and block.source == block.destination:
            continue
        candidates = (
            None
            if whole
            else _between(number, edges, index[:, edges.to(index.device)].cpu(), own, spot_of)
        )
        if candidates is None:
            bundled.append(number)
        else:
            found.append(candidates)
    strokes, drawn = [], 0
    for candidates, quota in zip(
        found, _share(max_edges, [len(c.edges) for c in found]), strict=True
    ):
        if not quota:  # fewer edges than tensors
            bundled.append(candidates.block)
            continue
        size = candidates.values.abs().nan_to_num(nan=torch.inf)
        keep = torch.argsort(size, descending=True, stable=True)[:quota].flip(
            0
        )  # the strongest is drawn last
        block = template.blocks[candidates.block]
        drawn += len(keep)
        strokes.append(
            Strokes(
                blocks=(candidates.block,),
                ends=candidates.ends[keep].numpy(),
                values=candidates.values[keep].numpy(),
                edges=candidates.edges[keep].numpy(),
                **_route(block.source, block.destination, layout, places, spacing),
            )
        )
    alike: dict[tuple[int, int, int, bool], list[int]] = {}
    for number in bundled:
        b = template.blocks[number]
        alike.setdefault((b.source, b.destination, int(b.type), b.tensor is None), []).append(
            number
        )
    bundles = [
        Strokes(
            blocks=tuple(numbers),
            ends=np.array([[source, destination]]),
            edges=np.empty(0, dtype=np.int64),
            values=np.array([sum(norms[n] ** 2 for n in numbers) ** 0.5]),
            **_route(source, destination, layout, places, spacing),
        )
        for (source, destination, _, _), numbers in alike.items()
    ]
    return bundles + strokes, drawn, nonfinite


def _between(
    number: int, edges: Tensor, index: Tensor, values: Tensor, spot_of: Tensor
) -> _Candidates | None:
    """The edges between dots, of those between the same two the one of largest |value|; ``None`` if
    there is none."""
    ends = spot_of[index].T
    seen = torch.nonzero((ends >= 0).all(1)).flatten()
    if not len(seen):
        return None
    ends, values, edges = ends[seen], values[seen], edges[seen]
    order = torch.argsort(values.abs().nan_to_num(nan=torch.inf), descending=True, stable=True)
    _, kept = np.unique(ends[order].numpy(), axis=0, return_index=True)
    chosen = order[torch.from_numpy(kept)]
    return _Candidates(number, edges[chosen], ends[chosen], values[chosen])


def _share(total: int, wanted: Sequence[int]) -> list[int]:
    """Share ``total`` out evenly; what one doesn't need goes to the others."""
    given, left = [0] * len(wanted), total
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for rank, i in enumerate(order):
        given[i] = min(wanted[i], left // (len(order) - rank))
        left -= given[i]
    return given


def _route(
    source: int, destination: int, layout: Layout, places: Sequence[Place], spacing: float
) -> dict[str, Any]:
    """Lane points between two ranges, and whether the way leads back."""
    a, b = (layout.column.get(i) for i in (source, destination))
    if a is None or b is None:
        return {"via": (), "back": False}
    lanes = [(c, layout.lanes[source, c]) for c in range(a + 1, b)]
    squeeze = min(1.0, 0.12 / max(places[source].half, 0.12))
    via = tuple((_MARGIN + spacing * (c + 0.5), y, squeeze) for c, y in lanes)
    return {"via": via, "back": b <= a}
