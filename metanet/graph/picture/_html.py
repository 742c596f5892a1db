"""A parameter graph as one HTML file: zoom, pan, facts under the pointer; it loads nothing from
anywhere."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from ...checkpoints import atomic_write
from ..template._template import GraphTemplate
from ._compose import MAX_EDGES, compose
from ._palette import (
    CONSTANT,
    NEGATIVE,
    NONFINITE,
    POSITIVE,
    ZERO,
    dashes,
    edge_color,
    node_color,
    words,
)
from ._picture import Picture, Strokes

_PAGE = Path(__file__).with_name("_page.html")


def draw_html(
    graph: Data,
    template: GraphTemplate,
    path: str | os.PathLike,
    *,
    title: str = "",
    max_edges: int = MAX_EDGES,
    max_neurons: int | None = None,
) -> Picture:
    """Write what :func:`metanet.graph.draw` draws as an HTML file that answers the pointer.

    Hovering tells what a node or an edge is, and brings a node's edges forward; types of edges and
    weak edges can be hidden. The file holds its script and its data, and needs no network.

    Args:
        graph, template, title, max_edges, max_neurons: as for :func:`metanet.graph.draw`.
        path: of the file; an old one is replaced.

    Raises:
        MetanetError: the graph is not of this template, or the place can't be written.
    """
    picture = compose(graph, template, max_edges, max_neurons)
    # "</script>" in a name would end the data, and "<!--" would hide what follows
    data = json.dumps(_data(picture, title), allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    with atomic_write(path) as temporary:
        Path(temporary).write_text(
            _PAGE.read_text(encoding="utf-8").replace("@DATA@", data), encoding="utf-8"
        )
    return picture


def _data(picture: Picture, title: str) -> dict[str, Any]:
    """Everything the page's script reads; lengths in inches as in :class:`Picture`."""
    template = picture.template
    return {
        "title": title,
        "counts": f"{template.num_nodes:,} nodes, {template.num_edges:,} edges",
        "caption": picture.caption,
        "width": _short(picture.width),
        "height": _short(picture.height),
        "spacing": picture.spacing,
        "scale": picture.scale,
        "whole": picture.whole,
        "colours": {
            "negative": NEGATIVE,
            "zero": ZERO,
            "positive": POSITIVE,
            "nonfinite": NONFINITE,
            "constant": CONSTANT,
        },
        "nodeTypes": {
            int(kind): {
                "name": words(kind),
                "colour": node_color(kind),
                "count": sum(r.count for r in template.nodes if r.type == kind),
            }
            for kind in sorted({r.type for r in template.nodes})
        },
        "edgeTypes": {
            int(kind): {
                "name": words(kind),
                "colour": edge_color(kind),
                "dash": dashes(kind),
                "constant": all(b.tensor is None for b in template.blocks if b.type == kind),
                "count": sum(b.count for b in template.blocks if b.type == kind),
            }
            for kind in sorted({b.type for b in template.blocks})
        },
        "ranges": _ranges(picture),
        "spots": [
            {
                "x": _short(x),
                "y": _short(y),
                "along": _short(along),
                "across": _short(across),
                "range": int(number),
                "neuron": int(neuron),
            }
            for (x, y, number, neuron), (along, across) in zip(
                picture.spots.tolist(), picture.ribbon.tolist(), strict=True
            )
        ],
        "rows": [asdict(row) for row in picture.rows],
        "strokes": [_strokes(picture, strokes) for strokes in picture.strokes],
    }


def _ranges(picture: Picture) -> list[Mapping[str, Any]]:
    out: list[Mapping[str, Any]] = []
    for place in picture.places:
        r = picture.template.nodes[place.number]
        acts = next((b.type for b in picture.template.blocks if b.source == place.number), None)
        out.append(
            {
                "name": r.name,
                "type": int(r.type),
                "layer": r.layer,
                "count": r.count,
                "activation": r.activation,
                "kind": place.kind,
                "x": _short(place.x),
                "y": _short(place.y),
                "half": _short(place.half),
                "along": _short(place.along),
                "across": _short(place.across),
                "label": place.label,
                "shown": len(place.spots),
                "acts": "" if acts is None else words(acts),
            }
        )
    return out


def _strokes(picture: Picture, strokes: Strokes) -> Mapping[str, Any]:
    blocks = [picture.template.blocks[i] for i in strokes.blocks]
    first = blocks[0]
    return {
        "type": int(first.type),
        "names": sorted({n for b in blocks for n in b.names}),
        "source": first.source,
        "constant": first.tensor is None,
        "bundle": strokes.is_bundle,
        "side": picture.from_source(strokes),
        "kernel": first.size("kernel"),
        "count": sum(b.count for b in blocks),
        "width": picture.relative_width(strokes) if strokes.is_bundle else 0,
        "ends": strokes.ends.tolist(),
        "values": [_number(v) for v in strokes.values.tolist()],
        "edges": strokes.edges.tolist(),
        "via": [[_short(v) for v in point] for point in strokes.via],
        "back": strokes.back,
    }


def _short(x: float) -> float:
    return round(x, 4)


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity; the script reads them from text."""
    if math.isfinite(value):
        return float(f"{value:.7g}")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
