"""A parameter graph as a PNG: layered by depth, edges coloured by weight."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import FuncNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from torch_geometric.data import Data

from ...checkpoints import atomic_write
from ..template._schema import EdgeType
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

_MAX_PIXELS = 30_000  # a side; beyond, many programs can't show a picture
_COLOURS = LinearSegmentedColormap.from_list("weights", [NEGATIVE, ZERO, POSITIVE])
_HEAD, _ENTRY, _ROW = 0.45, 1.9, 0.18  # inches: room above, and an entry of the legend
_PLAIN: dict[str, Any] = {"parse_math": False}  # names may have dollar signs
_HALO = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6}


def draw(
    graph: Data,
    template: GraphTemplate,
    path: str | os.PathLike,
    *,
    title: str = "",
    max_edges: int = MAX_EDGES,
    max_neurons: int | None = None,
    dpi: int = 150,
) -> Picture:
    """Draw a parameter graph.

    Ranges of neurons from left to right by depth, edges coloured by their value.

    Source nodes (biases, norms) are small and stand beside the neurons they act on; constant edges
    are grey and dashed; edges that pass columns by go round them. Deep networks get one dot per
    range, and bundles as wide as the norm of their edges. What is left out stands below the
    picture.

    Args:
        graph: one parameter graph.
        template: of its architecture.
        path: of the PNG; an old file is replaced.
        title: what stands above it.
        max_edges, max_neurons: see :func:`metanet.graph.compose`.
        dpi: pixels per inch; fewer for pictures of more than 30,000 pixels a side.

    Raises:
        MetanetError: the graph is not of this template, or the place can't be written.
    """
    picture = compose(graph, template, max_edges, max_neurons)
    width = max(picture.width, 6.5)
    handles, texts = _entries(picture)
    columns = max(1, min(8, int((width - 0.2 - (0.0 if picture.whole else 2.2)) / _ENTRY)))
    foot = 0.35 + max(0.5, _ROW * -(-len(texts) // columns))
    height = picture.height + foot + _HEAD
    figure = Figure(
        figsize=(width, height),
        dpi=min(dpi, int(_MAX_PIXELS / max(width, height))),
        facecolor="white",
    )
    axes = figure.add_axes((0, 0, 1, 1))
    left = (picture.width - width) / 2
    axes.set(xlim=(left, left + width), ylim=(picture.height + foot, -_HEAD))
    axes.axis("off")
    for strokes in picture.strokes:
        _stroke(axes, picture, strokes)
    _nodes(axes, picture)
    ranges = f"{template.num_nodes:,} nodes, {template.num_edges:,} edges"
    axes.text(
        left + 0.2,
        -_HEAD + 0.2,
        f"{title}   {ranges}" if title else ranges,
        fontsize=11,
        va="center",
        **_PLAIN,
    )
    axes.text(
        left + 0.2,
        picture.height + foot - 0.12,
        picture.caption,
        fontsize=9,
        va="center",
        color="#555555",
    )
    figure.legend(
        handles,
        texts,
        loc="lower left",
        ncol=columns,
        fontsize=8,
        frameon=False,
        columnspacing=1.2,
        bbox_to_anchor=(0.1 / width, 0.18 / height),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        handletextpad=0.5,
        labelspacing=0.35,
    )
    if not picture.whole:
        _colorbar(figure, picture.scale, width, height)
    with atomic_write(path) as temporary:
        figure.savefig(Path(temporary), format="png", dpi=figure.dpi)
    return picture


def _norm(scale: float) -> FuncNorm:
    """Symmetric about 0; square roots, so that layers of small weights can be seen beside those of
    large ones."""
    return FuncNorm(
        (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2), -scale, scale
    )


def _stroke(axes: Axes, picture: Picture, strokes: Strokes) -> None:
    block = picture.block(strokes)
    paths, constant = list(picture.paths(strokes)), block.tensor is None
    if strokes.is_bundle:
        width = 0.5 + 4.5 * picture.relative_width(strokes)
        color = CONSTANT if constant else edge_color(block.type)
        dash = (0, dashes(block.type)) if constant else "-"
        lines = LineCollection(paths, colors=color, linewidths=width, linestyles=[dash], alpha=0.75)
        axes.add_collection(lines, autolim=False)
        return
    if constant:
        dash = (0, dashes(block.type))
        lines = LineCollection(paths, colors=CONSTANT, linewidths=0.5, linestyles=[dash], alpha=0.8)
        axes.add_collection(lines, autolim=False)
        return
    shade = _norm(picture.scale)(np.clip(strokes.values, -picture.scale, picture.scale))
    strength = np.abs(2 * shade - 1)
    colors = _COLOURS(shade)
    colors[:, 3] = 0.25 + 0.7 * strength
    broken = ~np.isfinite(strokes.values)
    colors[broken] = LinearSegmentedColormap.from_list("", [NONFINITE, NONFINITE])(1.0)
    source = picture.from_source(strokes)
    widths = np.where(broken, 1.5, 0.3 + (0.4 if source else 1.1) * strength)
    lines = LineCollection(paths, colors=colors, linewidths=widths, zorder=0.9 if source else 1)
    axes.add_collection(lines, autolim=False)


def _nodes(axes: Axes, picture: Picture) -> None:
    ranges = picture.template.nodes
    for place in picture.places:
        r, color = ranges[place.number], node_color(ranges[place.number].type)
        dots = picture.spots[place.spots.start : place.spots.stop]
        if place.kind == "site" and not picture.whole:
            axes.add_patch(
                FancyBboxPatch(
                    (place.x - 0.1, place.y - place.half - 0.03),
                    0.2,
                    2 * place.half + 0.06,
                    zorder=2,
                    alpha=0.85,
                    boxstyle="round,pad=0,rounding_size=0.08",
                    facecolor="white",
                    edgecolor=color,
                    linewidth=0.6,
                )
            )
            if len(dots) < r.count:
                axes.text(
                    place.x,
                    place.y,
                    "⋮",
                    fontsize=9,
                    ha="center",
                    va="center",
                    color=color,
                    zorder=4,
                )
        size = {
            "site": 30 if not picture.whole else 40 + 16 * np.log2(1 + r.count),
            "side": 9,
            "loose": 14,
        }[place.kind]
        marker = "o" if place.kind == "site" else "s" if place.kind == "loose" else "D"
        axes.scatter(
            dots[:, 0],
            dots[:, 1],
            s=size if place.kind == "site" or not picture.whole else size * 0.6,
            c=color,
            marker=marker,
            linewidths=0.4,
            edgecolors="white",
            zorder=3,
        )
        if place.kind == "site":
            below = place.y + place.half + 0.1 + (0.05 if picture.whole else 0.0)
            text = "\n".join(place.label)
            axes.text(
                place.x,
                below,
                text,
                fontsize=10,
                ha="center",
                va="top",
                zorder=5,
                bbox=_HALO,
                **_PLAIN,
            )
        elif place.kind == "side" and not picture.whole:
            acts = next(b.type for b in picture.template.blocks if b.source == place.number)
            axes.text(
                place.x - 0.07,
                place.y,
                words(acts),
                fontsize=7,
                ha="right",
                va="center",
                color=color,
                zorder=5,
            )


def _entries(picture: Picture) -> tuple[list[Any], list[str]]:
    """The legend: types of nodes and of edges, with how many there are."""
    template = picture.template
    handles: list[Any] = []
    texts: list[str] = []
    for kind in sorted({r.type for r in template.nodes}):
        handles.append(
            Line2D([], [], marker="o", linestyle="", markersize=4, color=node_color(kind))
        )
        texts.append(f"{words(kind)} {sum(r.count for r in template.nodes if r.type == kind):,}")
    for type in sorted({b.type for b in template.blocks}):
        blocks = [b for b in template.blocks if b.type == type]
        handles.append(_edge_handle(picture, type, constant=blocks[0].tensor is None))
        texts.append(f"{words(type)} {sum(b.count for b in blocks):,}")
    return handles, texts


def _edge_handle(picture: Picture, kind: EdgeType, constant: bool) -> object:
    if constant:
        return Line2D([], [], color=CONSTANT, linewidth=1, dashes=dashes(kind))
    if picture.whole:
        return Line2D([], [], color=edge_color(kind), linewidth=2)
    return (
        Line2D([], [], color=NEGATIVE, linewidth=1.3),
        Line2D([], [], color=POSITIVE, linewidth=1.3),
    )


def _colorbar(figure: Figure, scale: float, width: float, height: float) -> None:
    axes = figure.add_axes(((width - 2.0) / width, 0.5 / height, 1.7 / width, 0.1 / height))
    ticks = [-scale, -scale / 4, 0, scale / 4, scale]
    colors = ScalarMappable(_norm(scale), _COLOURS)
    bar = figure.colorbar(colors, cax=axes, orientation="horizontal", extend="both", ticks=ticks)
    bar.ax.set_xticklabels([f"{t:.2g}" for t in ticks])
    bar.ax.tick_params(labelsize=8, length=2, pad=1)
    bar.ax.set_title("value", fontsize=8, pad=2)
