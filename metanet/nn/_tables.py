"""Small tables of what graphs are made of, the same from a template and from any batch of
graphs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graph import ACTIVATIONS, EdgeType, GraphTemplate, NodeType

Rows = dict[str, Tensor]
"""A table: columns of equal length, one row per site, block, node or edge."""

LINEAR_TYPES: tuple[int, ...] = tuple(
    int(t)
    for t in (
        EdgeType.LINEAR,
        EdgeType.QUERY,
        EdgeType.KEY,
        EdgeType.VALUE,
        EdgeType.ATTENTION_OUTPUT,
    )
)
"""Edges of linear maps, by what they make."""

CONVOLUTION_TYPES: tuple[int, ...] = (int(EdgeType.CONVOLUTION), int(EdgeType.TRANSPOSED))
"""Edges of convolutions."""

SIGNAL_TYPES: tuple[int, ...] = (
    *LINEAR_TYPES,
    *CONVOLUTION_TYPES,
    int(EdgeType.TENSOR),
    int(EdgeType.EMBEDDING),
)
"""Edges through which signals travel from neuron to neuron: the weights proper."""

CONSTANT_TYPES: tuple[int, ...] = tuple(
    int(t)
    for t in (
        EdgeType.RESIDUAL, EdgeType.PRODUCT, EdgeType.TO_HEAD, EdgeType.COUPLING, EdgeType.JOINT,
        EdgeType.SHARE,
        EdgeType.TIED,
    )
)  # fmt: skip
"""Edges whose value is always 1."""

# Metanetworks embed the integers of the schema. New kinds are appended to it, and a saved model
# must still load then, so every table of embeddings has room for more than there are today.
EDGE_TYPES, NODE_TYPES, ACTIVATION_TYPES = 32, 32, 64
if (
    max(EdgeType) >= EDGE_TYPES
    or max(NodeType) >= NODE_TYPES
    or len(ACTIVATIONS) > ACTIVATION_TYPES
):  # pragma: no cover
    raise RuntimeError("the graph schema has outgrown the tables of metanet.nn")

LAYERS = 16  # layers further than this from input and output count as one

SITE_COLUMNS = ("kind", "layer", "depth", "activation", "width")
TENSOR_COLUMNS = ("kind", "layer", "depth", "count", "fan_in", "fan_out")


def site_rows(template: GraphTemplate) -> Rows:
    """One row per node range, columns :data:`SITE_COLUMNS` (depth is that of the whole graph)."""
    rows = [
        (int(r.type), r.layer, template.depth, ACTIVATIONS.index(r.activation), r.count)
        for r in template.nodes
    ]
    return _table(rows, SITE_COLUMNS)


def tensor_rows(template: GraphTemplate) -> Rows:
    """One row per block, columns :data:`TENSOR_COLUMNS`."""
    fans = zip(template.blocks, template.fan_in, template.fan_out, strict=True)
    rows = [
        (int(b.type), b.layer, template.depth, b.count, fan_in, fan_out)
        for b, fan_in, fan_out in fans
    ]
    return _table(rows, TENSOR_COLUMNS)


def _table(rows: Sequence[tuple[int, ...]], columns: tuple[str, ...]) -> Rows:
    table = torch.tensor(rows, dtype=torch.long).view(len(rows), len(columns))
    return {name: table[:, i].contiguous() for i, name in enumerate(columns)}


def concatenate(tables: list[Rows]) -> Rows:
    """Tables with the same columns, one below the other."""
    return (
        tables[0] if len(tables) == 1 else {k: torch.cat([t[k] for t in tables]) for k in tables[0]}
    )
