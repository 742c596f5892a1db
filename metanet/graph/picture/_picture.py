"""A picture of a parameter graph: what stands where, and how edges run. PNG and HTML draw the same.

Lengths are inches, y runs downwards. Places are on the page, deep networks in rows; where edges run
is told on the ribbon that the rows are cut from (``_rows.py``).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..template._template import Block, GraphTemplate
from ._rows import Row, wrapped


@dataclass(frozen=True, kw_only=True)
class Place:
    """A node range in the picture.

    Attributes:
        number: of the range in the template.
        x, y: its centre on the page.
        along, across: its centre on the ribbon.
        half: half the height of its dots.
        spots: numbers of its dots; one that stands for all where they are not told apart.
        label: lines of text below it.
        kind: ``"site"``, ``"side"`` (a source node beside the range that it acts on) or
            ``"loose"``.
    """

    number: int
    x: float
    y: float
    along: float
    across: float
    half: float
    spots: range
    label: tuple[str, ...]
    kind: str

    @property
    def is_source(self) -> bool:
        """Whether it stands beside the range that it acts on, or nowhere."""
        return self.kind != "site"


@dataclass(frozen=True, kw_only=True)
class Strokes:
    """Drawn edges of one block, or a bundle that stands for all edges of some blocks.

    Attributes:
        blocks: their numbers.
        ends: ``(n, 2)`` numbers of dots; for a bundle numbers of ranges.
        values: ``(n,)`` of the edges; a bundle's is the norm of its finite edges.
        edges: ``(n,)`` numbers in the graph; empty for a bundle.
        via: points ``(x, y, squeeze)`` on the ribbon, in lanes that the edges pass; ``squeeze``
            scales the distance from the centre.
        back: whether the edges end in the column they start in, or in an earlier one.
    """

    blocks: tuple[int, ...]
    ends: np.ndarray
    values: np.ndarray
    edges: np.ndarray
    via: tuple[tuple[float, float, float], ...]
    back: bool

    @property
    def is_bundle(self) -> bool:
        return not len(self.edges)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Everything that is drawn.

    Attributes:
        whole: every range is one dot, and edges are drawn as bundles.
        places: of all ranges, in the template's order.
        spots: ``(dots, 4)``: x, y on the page, number of the range, neuron within it (-1: stands
            for all of them).
        ribbon: ``(dots, 2)``: x, y of the dots on the ribbon.
        rows: what the ribbon is cut into.
        drawn, total: edges drawn one by one, and edges there are.
        nonfinite: edges that are NaN or infinite.
    """

    template: GraphTemplate
    width: float
    height: float
    spacing: float
    whole: bool
    places: tuple[Place, ...]
    spots: np.ndarray
    ribbon: np.ndarray
    rows: tuple[Row, ...]
    strokes: tuple[Strokes, ...]
    drawn: int
    total: int
    nonfinite: int

    def block(self, strokes: Strokes) -> Block:
        return self.template.blocks[strokes.blocks[0]]

    def from_source(self, strokes: Strokes) -> bool:
        """Whether they start at a source node that stands beside what it acts on."""
        return self.places[self.block(strokes).source].is_source

    @cached_property
    def scale(self) -> float:
        """The |value| of the strongest colour: all but the largest 2 % of the drawn edges between
        neurons lie below."""
        weights = [s for s in self.strokes if not s.is_bundle and self.block(s).tensor is not None]
        # norms scale by about 1, far more than a weight: beside them the weights would all look
        # alike
        chosen = [s for s in weights if not self.from_source(s)] or weights
        sizes = np.abs(np.concatenate([s.values for s in chosen])) if chosen else np.empty(0)
        sizes = sizes[np.isfinite(sizes)]
        return float(np.quantile(sizes, 0.98)) or 1.0 if len(sizes) else 1.0

    @cached_property
    def _largest_norm(self) -> float:
        bundles = [s for s in self.strokes if s.is_bundle and self.block(s).tensor is not None]
        return max((float(s.values[0]) for s in bundles if not self.from_source(s)), default=0.0)

    def relative_width(self, strokes: Strokes) -> float:
        """Of a bundle: 1 for the largest norm, by square roots; source nodes' and constant ones
        stay thin."""
        if not self.whole or self.block(strokes).tensor is None or self.from_source(strokes):
            return 0.05
        return (float(strokes.values[0]) / self._largest_norm) ** 0.5 if self._largest_norm else 0.0

    @property
    def caption(self) -> str:
        """One sentence about what is left out, and how to read rows."""
        return self._left_out + ("; rows go on like lines of text" if len(self.rows) > 1 else "")

    @property
    def _left_out(self) -> str:
        bad = f"; {self.nonfinite:,} of all are NaN or infinite" if self.nonfinite else ""
        if self.whole:
            return f"{self.total:,} edges: one line for all of a type between two ranges, wide by norm{bad}"
        if self.drawn == self.total:
            return f"all {self.total:,} edges{bad}"
        kernels = any(b.size("kernel") > 1 for b in self.template.blocks)
        rest = ", of a kernel the largest entry" if kernels else ""
        thin = (
            "; thin lines where none of them is" if any(s.is_bundle for s in self.strokes) else ""
        )
        return (
            f"{self.drawn:,} of {self.total:,} edges: the largest |value| of every tensor "
            f"between the neurons shown{rest}{thin}{bad}"
        )

    def ends(self, strokes: Strokes) -> np.ndarray:
        """``(n, 2, 2)``: x and y on the ribbon of both ends of every stroke."""
        if strokes.is_bundle:
            centres = np.array([(p.along, p.across) for p in self.places])
            return centres[strokes.ends]
        return self.ribbon[strokes.ends]

    def paths(self, strokes: Strokes, steps: int = 14) -> np.ndarray:
        """``(n, points, 2)``: the strokes as polylines on the page, broken (NaN) where a row
        ends."""
        return wrapped(self.rows, self._on_ribbon(strokes, steps))

    def _on_ribbon(self, strokes: Strokes, steps: int) -> np.ndarray:
        """Straight between neighbouring columns, else curves."""
        ends = self.ends(strokes)
        if strokes.back:
            start, end = ends[:, 0], ends[:, 1]
            bulge = np.array([self.spacing * 0.42, 0.0])
            lift = np.where(np.abs(start - end).sum(1, keepdims=True) < 1e-9, 0.2, 0.0) * np.array(
                [0.0, 1.0]
            )
            away = bulge if (end[:, 0] >= start[:, 0] - 1e-9).all() else -bulge
            return _bezier(start, start + bulge - lift, end + away + lift, end, 2 * steps)
        if not strokes.via:
            return ends
        return _smooth(self.points(strokes), steps)

    def points(self, strokes: Strokes) -> np.ndarray:
        """``(n, points, 2)`` on the ribbon: both ends and the lane points between."""
        ends = self.ends(strokes)
        block = self.block(strokes)
        sideways = ends[:, 0, 1] - self.places[block.source].across
        via = [
            np.stack([np.full_like(sideways, x), y + squeeze * sideways], 1)
            for x, y, squeeze in strokes.via
        ]
        return np.stack([ends[:, 0], *via, ends[:, 1]], 1)


def _bezier(
    p0: np.ndarray, p1: np.ndarray, p2: np.ndarray, p3: np.ndarray, steps: int
) -> np.ndarray:
    t = np.linspace(0, 1, steps)[:, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    return (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3


def _smooth(points: np.ndarray, steps: int) -> np.ndarray:
    """Level where it passes a point, S-shaped between points."""
    parts = []
    for a, b in zip(points.transpose(1, 0, 2)[:-1], points.transpose(1, 0, 2)[1:], strict=True):
        half = np.array([0.5, 0.0]) * (b - a)
        parts.append(_bezier(a, a + half, b - half, b, steps))
    return np.concatenate(parts, 1)
