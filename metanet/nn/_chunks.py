"""How the edges of a dense batch are cut into pieces that are worked on one at a time."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ._pick import Pick
from ._plan import MatrixPlan, TemplatePlan, VectorPlan


class Matrix(NamedTuple):
    """One block, or several blocks of the same sizes, of all graphs of a stack.

    Attributes:
        blocks: how many.
        shape: groups (of all blocks), kernel, destination, source, graphs.
        source, destination, token: rows of the nodes and of the blocks.
        inward, outward, mean: weights of an edge in the sums over a destination's, a source's and
            all edges.
        signal: fan-in over fan-out where signals travel through the blocks, else 0.
    """

    blocks: int
    shape: tuple[int, int, int, int, int]
    source: Pick
    destination: Pick
    token: Pick
    inward: float
    outward: float
    mean: float
    signal: float

    def cells(
        self, part: Float[Tensor, "edges width"]
    ) -> Float[Tensor, "groups kernel destination source row"]:
        """The edges as an array."""
        return part.view(*self.shape[:4], -1)


class Vectors(NamedTuple):
    """All blocks of a stack in which every destination has one edge: biases, norms, residual sums.

    There are many of them and they are small, so they are gathered and scattered together, whole
    rows of ``graphs * width`` numbers at a time.

    Attributes:
        source, destination, token: for each edge the rows of its nodes and its block.
        outward, mean: weights of the edges as in :class:`Matrix`; those inward are 1.
    """

    source: Pick
    destination: Pick
    token: Pick
    outward: Float[Tensor, "edges 1"]
    mean: Float[Tensor, "edges 1"]


class Chunks(NamedTuple):
    """A dense batch in pieces.

    Attributes:
        pieces: in the order of the edges.
        edges: rows of every piece.
        nodes, node_graphs: rows of every node range, and how many graphs they are of.
        tokens: rows of all blocks.
        stacks: number of template edges and of graphs of every stack.
    """

    pieces: tuple[Matrix | Vectors, ...]
    edges: list[int]
    nodes: list[int]
    node_graphs: list[int]
    tokens: int
    stacks: list[tuple[int, int]]


def cut(plans: Sequence[TemplatePlan], graphs: Sequence[int], dtype: torch.dtype) -> Chunks:
    """The pieces of a batch with so many graphs of each template."""
    pieces: list[Matrix | Vectors] = []
    edges, nodes, node_graphs, stacks = [], [], [], []
    first_node, first_token = 0, 0
    for p, b in zip(plans, graphs, strict=True):
        for m in p.matrices:
            pieces.append(_matrix(m, first_node, first_token, b))
            edges.append(m.blocks * m.edges * b)
        if p.vectors is not None:
            pieces.append(_vectors(p.vectors, first_node, first_token, b, dtype))
            edges.append(p.vectors.mean.shape[0] * b)
        nodes += [count * b for count in p.ranges]
        node_graphs += [b] * len(p.ranges)
        first_node += sum(p.ranges) * b
        first_token += p.blocks * b
        stacks.append((p.edge_row.shape[0], b))
    return Chunks(tuple(pieces), edges, nodes, node_graphs, first_token, stacks)


def _matrix(m: MatrixPlan, first_node: int, first_token: int, graphs: int) -> Matrix:
    group, kernel, destination, source = m.sizes
    fan_in, fan_out = source * kernel, destination * kernel
    return Matrix(
        blocks=m.blocks,
        shape=(m.blocks * group, kernel, destination, source, graphs),
        source=m.source.in_batch(first_node, graphs),
        destination=m.destination.in_batch(first_node, graphs),
        token=m.number.in_batch(first_token, graphs),
        inward=1 / fan_in,
        outward=1 / fan_out,
        mean=1 / m.edges,
        signal=fan_in / fan_out if m.signal else 0.0,
    )


def _vectors(
    v: VectorPlan, first_node: int, first_token: int, graphs: int, dtype: torch.dtype
) -> Vectors:
    return Vectors(
        source=v.source.in_batch(first_node, graphs),
        destination=v.destination.in_batch(first_node, graphs),
        token=v.number.in_batch(first_token, graphs),
        outward=v.outward.to(dtype),
        mean=v.mean.to(dtype),
    )
