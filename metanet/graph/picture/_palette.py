"""Colours, dashes and words of a picture, the same for PNG and HTML."""

from ..template._schema import EdgeType, NodeType

NEGATIVE = "#1f5fbf"
ZERO = "#e4e2df"
POSITIVE = "#c8321f"
NONFINITE = "#d400d4"
CONSTANT = "#8a8a8a"
_NODES = (
    "#2f7d4f", "#3f5f8f", "#d17a22", "#6b6b6b", "#9c5fb5",
    "#b8860b", "#2a9d9d", "#c0587e", "#7a5c3e", "#5b7f1f",
    "#a23b3b", "#4f4f9e", "#8d6e97", "#2c6e6e", "#94713a",
)  # fmt: skip
_EDGES = (
    "#6f9bd1", "#e0a458", "#b79ad6", "#8fb8a8", "#d98c8c",
    "#86c5c5", "#c9b458", "#a3a3a3", "#b58ab5", "#9c8f7f",
    "#5fae78", "#d97b4f", "#cf7fb0", "#7f8fd9", "#a8bf5a", "#58a6b8",
)  # fmt: skip
_DASHES = (  # nine, so that no two constant types have the same
    (6, 2, 1, 2), (1, 1.5), (4, 2, 4, 5), (8, 2), (2, 1, 2, 5),
    (6, 2, 1, 2, 1, 2), (1, 3), (2, 2), (4, 2.5),
)  # fmt: skip


def words(type: NodeType | EdgeType) -> str:
    """What a kind is called in legends."""
    return type.name.lower().replace("_", " ")


def dashes(type: EdgeType) -> tuple[int | float, ...]:
    """Of constant edges: lengths of strokes and gaps in turn."""
    return _DASHES[int(type) % len(_DASHES)]


def edge_color(type: EdgeType) -> str:
    """Of a bundle, where colour can't show a value."""
    return _EDGES[int(type) % len(_EDGES)]


def node_color(type: NodeType) -> str:
    """Of the dots of a range."""
    return _NODES[int(type) % len(_NODES)]
