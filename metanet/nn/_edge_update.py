"""The dense form of the edge update: all that a layer does to the edges of a batch.

Written as one autograd function because the edges are by far the largest tensors: the large
products run over all of them at once, broadcasts and sums work in place on one piece at a time, and
nothing but ``e`` and ``h`` is kept.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._chunks import Chunks, Vectors


class EdgeUpdate(torch.autograd.Function):
    r"""``h = relu(e W_e + s[source] + d[destination])``, ``e' = e + h W_o`` and the means of ``h``.

    Shapes:
        - **e** ``(edges, dim)``, **w_e** ``(dim, width)``, **source, destination** ``(nodes,
          width)``
        - **static** ``(edges of the templates, width)`` or ``None``: added to ``h`` in all graphs
          of a stack
        - **w_o** ``(width, dim)`` or ``None``: then there is no ``e'``
        - **returns** ``e'``, or ``h`` if ``keep``, or ``None``; means by destination and by source
          ``(nodes, width)``, and by block ``(tokens, width)``
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
        """The new edges and the means that nodes hear: see :meth:`Layout.update_edges`."""
        source, destination = source.contiguous(), destination.contiguous()
        h = torch.mm(e, w_e)
        _add_ends(h, source, destination, chunks)
        if static is not None:
            parts = zip(
                _by_stack(h, chunks), static.split([n for n, _ in chunks.stacks]), strict=True
            )
            for hs, part in parts:
                hs += part[:, None]
        h.relu_()
        inward, outward, mean = _means(h, len(source), chunks)
        out: Tensor | None
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
        """Gradients of the arguments of :meth:`forward`, from the ``h`` that it kept."""
        e, w_e, h, w_o = ctx.saved_tensors
        chunks: Chunks = ctx.chunks
        g_wo = None
        if g_new is None:
            gh = torch.zeros_like(h)
        elif w_o is None:
            gh = g_new.clone(memory_format=torch.contiguous_format)
        else:
            gh = torch.mm(g_new, w_o.t())
            g_wo = torch.mm(h.t(), g_new)
        _add_gradients_of_means(
            gh, g_in.contiguous(), g_out.contiguous(), g_mean.contiguous(), chunks
        )
        torch.ops.aten.threshold_backward.grad_input(gh, h, 0, grad_input=gh)
        g_s, g_d = _sums_by_end(gh, len(g_in), chunks)
        g_static = (
            torch.cat([part.sum(1) for part in _by_stack(gh, chunks)]) if ctx.static else None
        )
        g_e = None
        if ctx.needs_input_grad[0]:
            g_e = (
                torch.mm(gh, w_e.t())
                if w_o is None or g_new is None
                else torch.addmm(g_new, gh, w_e.t())
            )
        return g_e, torch.mm(e.t(), gh), g_s, g_d, g_static, g_wo, None, None


def _add_ends(h: Tensor, source: Tensor, destination: Tensor, chunks: Chunks) -> None:
    """``h += source[...] + destination[...]``, in place."""
    for c, part in zip(chunks.pieces, h.split(chunks.edges), strict=True):
        to_add = c.destination.read(destination), c.source.read(source)
        if isinstance(c, Vectors):
            rows = part.view(len(c.mean), -1)
            rows += to_add[0]
            rows += to_add[1]
        else:
            g, _, d, s, _ = c.shape
            cells = c.cells(part)
            cells += to_add[0].view(g, 1, d, 1, -1)
            cells += to_add[1].view(g, 1, 1, s, -1)


def _means(h: Tensor, nodes: int, chunks: Chunks) -> tuple[Tensor, Tensor, Tensor]:
    width = h.shape[1]
    inward, outward = h.new_zeros(nodes, width), h.new_zeros(nodes, width)
    mean = h.new_zeros(chunks.tokens, width)
    for c, part in zip(chunks.pieces, h.split(chunks.edges), strict=True):
        if isinstance(c, Vectors):
            rows = part.view(len(c.mean), -1)
            c.destination.add(inward, rows)
            c.source.add(outward, rows * c.outward)
            c.token.add(mean, rows * c.mean)
        else:
            d, s = c.shape[2:4]
            cells = c.cells(part)
            by_destination = cells.sum((1, 3))
            by_source = cells.sum((1, 2))
            c.destination.add(inward, by_destination.flatten(0, 1), c.inward)
            c.source.add(outward, by_source.flatten(0, 1), c.outward)
            smaller = by_destination if d < s else by_source
            c.token.add(mean, smaller.view(c.blocks, -1, smaller.shape[-1]).sum(1), c.mean)
    return inward, outward, mean


def _add_gradients_of_means(
    gh: Tensor, g_in: Tensor, g_out: Tensor, g_mean: Tensor, chunks: Chunks
) -> None:
    for c, part in zip(chunks.pieces, gh.split(chunks.edges), strict=True):
        to_destination, to_source, to_all = (
            c.destination.read(g_in),
            c.source.read(g_out),
            c.token.read(g_mean),
        )
        if isinstance(c, Vectors):
            rows = part.view(len(c.mean), -1)
            rows += to_destination
            rows.addcmul_(to_source, c.outward)
            rows.addcmul_(to_all, c.mean)
        else:
            g, _, d, s, _ = c.shape
            cells = c.cells(part)
            to_destination = to_destination.view(c.blocks, -1, to_all.shape[1]) * c.inward
            to_destination.add_(to_all[:, None], alpha=c.mean)
            cells += to_destination.view(g, 1, d, 1, -1)
            cells.add_(to_source.view(g, 1, 1, s, -1), alpha=c.outward)


def _sums_by_end(gh: Tensor, nodes: int, chunks: Chunks) -> tuple[Tensor, Tensor]:
    g_s, g_d = gh.new_zeros(nodes, gh.shape[1]), gh.new_zeros(nodes, gh.shape[1])
    for c, part in zip(chunks.pieces, gh.split(chunks.edges), strict=True):
        if isinstance(c, Vectors):
            rows = part.view(len(c.mean), -1)
            c.destination.add(g_d, rows)
            c.source.add(g_s, rows)
        else:
            cells = c.cells(part)
            c.destination.add(g_d, cells.sum((1, 3)).flatten(0, 1))
            c.source.add(g_s, cells.sum((1, 2)).flatten(0, 1))
    return g_s, g_d


def _by_stack(h: Tensor, chunks: Chunks) -> list[Tensor]:
    """Every stack's edges as ``(template edges, graphs, width)``."""
    parts = h.split([n * b for n, b in chunks.stacks])
    return [part.view(n, b, -1) for part, (n, b) in zip(parts, chunks.stacks, strict=True)]
