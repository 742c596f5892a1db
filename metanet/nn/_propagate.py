"""The dense form of sending node features through the weights of the networks themselves."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._edge_update import Chunk, Chunks


class Propagate(torch.autograd.Function):
    r"""``inward = V x`` and ``outward = r V^T x`` for every block, with ``V`` its values or their squares.

    Shapes:
        - **x** ``(nodes, 2 * width)``, **signals** for each block ``(group, graphs, 2, destination, source)`` or ``None``
        - **returns** two of ``(nodes, 2 * width)``
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, chunks: Chunks, *signals: Tensor | None):  # type: ignore[no-untyped-def]
        x = x.contiguous()
        ctx.save_for_backward(x, *signals)
        ctx.chunks = chunks
        inward, outward = torch.zeros_like(x), torch.zeros_like(x)
        parts = [t.split(chunks.nodes) for t in (x, inward, outward)]
        for c, v in zip(chunks.blocks, signals, strict=True):
            if v is None:
                continue
            x_s, x_d = _read(parts[0][c.source], c, True), _read(parts[0][c.destination], c, False)
            _add(parts[1][c.destination], c, False, v @ x_s)
            _add(parts[2][c.source], c, True, v.mT @ (x_d * _reverse(c, v)))
        return inward, outward

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_in: Tensor, g_out: Tensor):  # type: ignore[no-untyped-def]
        x, *signals = ctx.saved_tensors
        chunks: Chunks = ctx.chunks
        g_x, g_signals = torch.zeros_like(x), [None] * len(signals)
        parts = [t.split(chunks.nodes) for t in (x, g_in.contiguous(), g_out.contiguous(), g_x)]
        for i, (c, v) in enumerate(zip(chunks.blocks, signals, strict=True)):
            if v is None:
                continue
            gd, gs = _read(parts[1][c.destination], c, False), _read(parts[2][c.source], c, True)
            gs = gs * _reverse(c, v)
            _add(parts[3][c.source], c, True, v.mT @ gd)
            _add(parts[3][c.destination], c, False, v @ gs)
            if ctx.needs_input_grad[2 + i]:
                x_s, x_d = _read(parts[0][c.source], c, True), _read(parts[0][c.destination], c, False)
                g_signals[i] = gd @ x_s.mT + x_d @ gs.mT
        return g_x, None, *g_signals


def _reverse(c: Chunk, like: Tensor) -> Tensor:
    return like.new_tensor([c.signal**0.5, c.signal]).view(1, 1, 2, 1, 1)


def _read(part: Tensor, c: Chunk, source: bool) -> Tensor:
    """Nodes of a range as ``(group, graphs, 2, neurons, width)``."""
    g, _, d, s, b = c.shape
    rows = part[: c.source_nodes if source else c.destination_nodes]
    return rows.view(g, s if source else d, b, 2, -1).permute(0, 2, 3, 1, 4)


def _add(part: Tensor, c: Chunk, source: bool, values: Tensor) -> None:
    g, _, d, s, b = c.shape
    rows = part[: c.source_nodes if source else c.destination_nodes]
    rows.view(g, s if source else d, b, 2, -1).add_(values.permute(0, 3, 1, 2, 4))
