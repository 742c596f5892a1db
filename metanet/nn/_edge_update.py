"""The dense form of the edge update: everything a layer does to the edges of a batch, one block at a time.

Written as one autograd function because the edges are by far the largest tensors: forward and backward walk over
the blocks once, with all intermediate results in cache, and keep nothing but ``e`` and ``h``.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class Chunk(NamedTuple):
    """One block of all graphs of a stack.

    Attributes:
        shape: group, kernel, destination, source, graphs.
        source, destination: numbers of the node ranges, counted over the whole batch.
        source_nodes, destination_nodes: how many of the range's nodes the block touches.
        inward, outward, mean: weights of an edge in the sums over a destination's, a source's and all edges.
        signal: fan-in over fan-out where signals travel through the block, else 0.
    """

    shape: tuple[int, int, int, int, int]
    source: int
    destination: int
    source_nodes: int
    destination_nodes: int
    inward: float
    outward: float
    mean: float
    signal: float


class Chunks(NamedTuple):
    """All blocks of a batch in edge order; how many rows their edges, the ranges and the tokens have.

    ``range_graphs`` tells the number of graphs that each node range stands for.
    """

    blocks: tuple[Chunk, ...]
    edges: list[int]
    nodes: list[int]
    tokens: list[int]
    range_graphs: list[int]


class EdgeUpdate(torch.autograd.Function):
    r"""``h = relu(e W_e + s[source] + d[destination])``, ``e' = e + h W_o`` and the means of ``h``.

    Shapes:
        - **e** ``(edges, dim)``, **w_e** ``(dim, width)``, **source, destination** ``(nodes, width)``
        - **static** ``(edges of the templates, width)`` or ``None``: added to ``h`` in all graphs of a stack
        - **w_o** ``(width, dim)`` or ``None``: then there is no ``e'``
        - **returns** ``e'``, or ``h`` if ``keep``, or ``None``; means by destination and by source ``(nodes, width)``,
          and by block ``(tokens, width)``
    """

    @staticmethod
    def forward(
        ctx: Any,
        e: Float[Tensor, "edges dim"],
        w_e: Float[Tensor, "dim width"],
        source: Float[Tensor, "nodes width"],
        destination: Float[Tensor, "nodes width"],
        static: Float[Tensor, "template_edges width"] | None,
        w_o: Float[Tensor, "width dim"] | None,
        keep: bool,
        chunks: Chunks,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        width = w_e.shape[1]
        h = torch.mm(e, w_e)
        inward, outward = torch.zeros_like(source), torch.zeros_like(source)
        mean = e.new_empty(sum(chunks.tokens), width)
        s_parts, d_parts, h_parts = source.split(chunks.nodes), destination.split(chunks.nodes), h.split(chunks.edges)
        first = 0
        for c, hb in zip(chunks.blocks, h_parts, strict=True):
            g, k, d, s, b = c.shape
            row = b * width
            h5 = hb.view(g, k, d, s, row)
            h5 += d_parts[c.destination][: c.destination_nodes].view(g, 1, d, 1, row)
            h5 += s_parts[c.source][: c.source_nodes].view(g, 1, 1, s, row)
            if static is not None:
                cells = g * k * d * s
                hb.view(cells, b, width).add_(static[first : first + cells, None])
                first += cells
        h.relu_()
        in_parts, out_parts = inward.split(chunks.nodes), outward.split(chunks.nodes)
        mean_parts = mean.split(chunks.tokens)
        for c, hb, mb in zip(chunks.blocks, h_parts, mean_parts, strict=True):
            g, k, d, s, b = c.shape
            row = b * width
            h5 = hb.view(g, k, d, s, row)
            by_destination = _over(h5, 1, 3)
            in_parts[c.destination][: c.destination_nodes].view(g, d, row).add_(by_destination, alpha=c.inward)
            out_parts[c.source][: c.source_nodes].view(g, s, row).add_(_over(h5, 1, 2), alpha=c.outward)
            torch.sum(by_destination.view(g * d, b, width), 0, out=mb)
            mb *= c.mean
        if w_o is not None:
            out = torch.addmm(e, h, w_o)
        else:
            out = h if keep else None
        ctx.save_for_backward(e, w_e, h, w_o)
        ctx.chunks, ctx.static = chunks, static is not None
        return out, inward, outward, mean

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_new: Tensor | None, g_in: Tensor, g_out: Tensor, g_mean: Tensor
    ) -> tuple[Tensor | None, ...]:
        e, w_e, h, w_o = ctx.saved_tensors
        chunks: Chunks = ctx.chunks
        width = w_e.shape[1]
        g_in, g_out, g_mean = g_in.contiguous(), g_out.contiguous(), g_mean.contiguous()
        g_wo = None
        if g_new is None:
            gh = torch.zeros_like(h)
        elif w_o is None:
            gh = g_new.clone(memory_format=torch.contiguous_format)
        else:
            gh = torch.mm(g_new, w_o.t())
            g_wo = torch.mm(h.t(), g_new)
        in_parts, out_parts = g_in.split(chunks.nodes), g_out.split(chunks.nodes)
        gh_parts, mean_parts = gh.split(chunks.edges), g_mean.split(chunks.tokens)
        for c, gb, mb in zip(chunks.blocks, gh_parts, mean_parts, strict=True):
            g, k, d, s, b = c.shape
            row = b * width
            g5 = gb.view(g, k, d, s, row)
            to_d = in_parts[c.destination][: c.destination_nodes].view(g, 1, d, 1, row) * c.inward
            g5 += to_d.add_(mb.view(row), alpha=c.mean)
            g5.add_(out_parts[c.source][: c.source_nodes].view(g, 1, 1, s, row), alpha=c.outward)
        torch.ops.aten.threshold_backward.grad_input(gh, h, 0, grad_input=gh)
        gh_parts = gh.split(chunks.edges)
        g_s, g_d = torch.zeros_like(g_in), torch.zeros_like(g_in)
        gs_parts, gd_parts = g_s.split(chunks.nodes), g_d.split(chunks.nodes)
        statics = []
        for c, gb in zip(chunks.blocks, gh_parts, strict=True):
            g, k, d, s, b = c.shape
            row = b * width
            g5 = gb.view(g, k, d, s, row)
            gd_parts[c.destination][: c.destination_nodes].view(g, d, row).add_(_over(g5, 1, 3))
            gs_parts[c.source][: c.source_nodes].view(g, s, row).add_(_over(g5, 1, 2))
            if ctx.static:
                statics.append(gb.view(g * k * d * s, b, width).sum(1))
        g_we = torch.mm(e.t(), gh)
        g_e = None
        if ctx.needs_input_grad[0]:
            g_e = torch.mm(gh, w_e.t()) if w_o is None or g_new is None else torch.addmm(g_new, gh, w_e.t())
        return g_e, g_we, g_s, g_d, torch.cat(statics) if statics else None, g_wo, None, None


def _over(x: Tensor, *axes: int) -> Tensor:
    """Sum over two axes; most blocks are vectors, where there is nothing to add up."""
    if all(x.shape[a] == 1 for a in axes):
        return x.squeeze(axes)
    return x.sum(axes)
