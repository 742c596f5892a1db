"""How the edges of a dense batch are cut into pieces that are worked on one at a time."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._plan import TemplatePlan


class Matrix(NamedTuple):
    """One block of all graphs of a stack: a weight proper.

    Attributes:
        shape: group, kernel, destination, source, graphs.
        source, destination: numbers of the node ranges, counted over the whole batch.
        source_nodes, destination_nodes: how many of the range's rows the block touches.
        token: number of the block, counted over the whole batch.
        inward, outward, mean: weights of an edge in the sums over a destination's, a source's and all edges.
        signal: fan-in over fan-out where signals travel through the block, else 0.
    """

    shape: tuple[int, int, int, int, int]
    source: int
    destination: int
    source_nodes: int
    destination_nodes: int
    token: int
    inward: float
    outward: float
    mean: float
    signal: float


class Vectors(NamedTuple):
    """All blocks of a stack in which every destination has one edge: biases, norms, residual sums.

    There are many of them and they are small, so they are gathered and scattered together, whole rows of
    ``graphs * width`` numbers at a time.

    Attributes:
        graphs: of the stack.
        nodes, tokens: first and last row of the stack's nodes and tokens in the batch.
        source, destination, number: for each edge its nodes and its block, counted within the template.
        outward, mean: weights of the edges as in :class:`Matrix`; those inward are 1.
    """

    graphs: int
    nodes: tuple[int, int]
    tokens: tuple[int, int]
    source: Int[Tensor, " edges"]
    destination: Int[Tensor, " edges"]
    number: Int[Tensor, " edges"]
    outward: Float[Tensor, "edges 1"]
    mean: Float[Tensor, "edges 1"]

    def of_nodes(self, x: Float[Tensor, "nodes width"]) -> Float[Tensor, "own_nodes row"]:
        """The stack's part of something about all nodes, a row per node of the template."""
        return x[self.nodes[0] : self.nodes[1]].view(-1, self.graphs * x.shape[1])

    def of_tokens(self, x: Float[Tensor, "tokens width"]) -> Float[Tensor, "own_tokens row"]:
        return x[self.tokens[0] : self.tokens[1]].view(-1, self.graphs * x.shape[1])


class Chunks(NamedTuple):
    """A dense batch in pieces.

    Attributes:
        pieces: in the order of the edges.
        edges: rows of every piece.
        nodes, node_graphs: rows of every node range, and how many graphs they are of.
        tokens: rows of every block (its graphs).
        stacks: number of template edges and of graphs of every stack.
    """

    pieces: tuple[Matrix | Vectors, ...]
    edges: list[int]
    nodes: list[int]
    node_graphs: list[int]
    tokens: list[int]
    stacks: list[tuple[int, int]]


def cut(plans: Sequence[TemplatePlan], graphs: Sequence[int], dtype: torch.dtype) -> Chunks:
    """The pieces of a batch with so many graphs of each template."""
    pieces: list[Matrix | Vectors] = []
    edges, nodes, node_graphs, tokens, stacks = [], [], [], [], []
    first_node = 0
    for p, b in zip(plans, graphs, strict=True):
        base, first_token = len(nodes), len(tokens)
        for block in p.matrices:
            g, k, d, s = block.sizes
            pieces.append(
                Matrix(
                    shape=(g, k, d, s, b),
                    source=base + block.source,
                    destination=base + block.destination,
                    source_nodes=g * s * b,
                    destination_nodes=g * d * b,
                    token=first_token + block.number,
                    inward=1 / block.fan_in,
                    outward=1 / block.fan_out,
                    mean=1 / block.count,
                    signal=block.fan_in / block.fan_out if block.signal else 0.0,
                )
            )
            edges.append(block.count * b)
        nodes += [count * b for count in p.ranges]
        node_graphs += [b] * len(p.ranges)
        count = sum(p.ranges) * b
        rows = sum(tokens)
        tokens += [b] * p.blocks
        if p.vectors is not None:
            v = p.vectors
            pieces.append(
                Vectors(
                    graphs=b,
                    nodes=(first_node, first_node + count),
                    tokens=(rows, rows + p.blocks * b),
                    source=v.source,
                    destination=v.destination,
                    number=v.number,
                    outward=v.outward.to(dtype),
                    mean=v.mean.to(dtype),
                )
            )
            edges.append(v.source.shape[0] * b)
        first_node += count
        stacks.append((p.edge_row.shape[0], b))
    return Chunks(tuple(pieces), edges, nodes, node_graphs, tokens, stacks)
