"""The dense form of sending node features through the weights of the networks themselves."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._chunks import Chunks, Matrix


class Propagate(torch.autograd.Function):
    r"""``V x`` to destinations and ``r V^T x`` to sources for every block, with ``V`` its values or
    their squares.

    Shapes:
        - **x** ``(nodes, 2 * width)``
        - **signals** for each piece ``(group, graphs, 2, destination, source)``, or ``None`` if it
          carries none
        - **returns** two of ``(nodes, 2 * width)``
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, chunks: Chunks, *signals: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What arrives at destinations and at sources: see :meth:`Layout.propagate`."""
        x = x.contiguous()
        ctx.save_for_backward(x, *signals)
        ctx.chunks = chunks
        inward, outward = torch.zeros_like(x), torch.zeros_like(x)
        for c, v in zip(chunks.pieces, signals, strict=True):
            if v is not None and isinstance(c, Matrix):
                _add(inward, c, False, v @ _read(x, c, True), (1.0, 1.0))
                _add(outward, c, True, v.mT @ _read(x, c, False), _ratios(c))
        return inward, outward

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_in: Tensor, g_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the values and of the node features."""
        x, *signals = ctx.saved_tensors
        chunks: Chunks = ctx.chunks
        g_x, g_signals = torch.zeros_like(x), [None] * len(signals)
        g_in, g_out = g_in.contiguous(), g_out.contiguous()
        for i, (c, v) in enumerate(zip(chunks.pieces, signals, strict=True)):
            if v is None or not isinstance(c, Matrix):
                continue
            to_d, to_s = _read(g_in, c, False), _read(g_out, c, True)
            _add(g_x, c, True, v.mT @ to_d, (1.0, 1.0))
            _add(g_x, c, False, v @ to_s, _ratios(c))
            if ctx.needs_input_grad[2 + i]:
                ratios = v.new_tensor(_ratios(c)).view(2, 1, 1)
                back = ratios * (_read(x, c, False) @ to_s.mT)
                g_signals[i] = to_d @ _read(x, c, True).mT + back
        return g_x, None, *g_signals


def _ratios(c: Matrix) -> tuple[float, float]:
    return c.signal**0.5, c.signal


def _array(rows: Tensor, c: Matrix, source: bool) -> Tensor:
    """Rows of nodes as ``(group, graphs, 2, neurons, width)``."""
    g, _, d, s, b = c.shape
    return rows.view(g, s if source else d, b, 2, -1).permute(0, 2, 3, 1, 4)


def _read(x: Tensor, c: Matrix, source: bool) -> Tensor:
    return _array((c.source if source else c.destination).read(x), c, source)


def _add(x: Tensor, c: Matrix, source: bool, values: Tensor, scales: tuple[float, float]) -> None:
    end = c.source if source else c.destination
    if end.numbers is not None:
        values = (
            values if scales == (1.0, 1.0) else values * values.new_tensor(scales).view(2, 1, 1)
        )
        end.add(x, values.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1))
        return
    target = _array(end.rows(x), c, source)
    if scales[0] == scales[1]:
        target.add_(values, alpha=scales[0])
    else:
        for half, scale in enumerate(scales):
            target[:, :, half].add_(values[:, :, half], alpha=scale)
