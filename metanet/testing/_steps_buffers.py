"""Steps of random programs that own masks and index tables, or read numbers.

Buffers are as a fresh network has them: masks of ones, indices 0..n, constant rows. What training
would leave in them must not matter to what is found; verification draws them anew.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._programs import Draw, Run, State, some_axis, step


@step
def own_mask(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A mask along one axis or two, which multiplies or chooses."""
    i = draw.tensor(tensors)
    x = tensors[i]
    axes = {some_axis(draw, x), some_axis(draw, x)} - {None}
    if not axes:
        return None
    shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
    w = draw.buffer(
        torch.ones(shape, dtype=draw.pick(torch.bool, torch.bool, torch.int64, torch.uint8))
    )
    return draw.pick(
        lambda p, t: t[i] * p[w],
        lambda p, t: torch.where(p[w] > 0, t[i], t[i].tanh()),
        lambda p, t: t[i].masked_fill(p[w] == 0, 0.5),
    )


@step
def own_index(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Items of an axis by an index table, in one of several ways."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    n = tensors[i].shape[a]
    w = draw.buffer(draw.pick(torch.arange(n), torch.zeros(n, dtype=torch.int64)))
    shape = [-1 if b == a else 1 for b in range(tensors[i].ndim)]
    return draw.pick(
        lambda p, t: t[i].index_select(a, p[w]),
        lambda p, t: t[i][(slice(None),) * a + (p[w],)],
        lambda p, t: t[i].gather(a, p[w].view(shape).expand(t[i].shape)),
        lambda p, t: t[i].index_add(a, p[w], t[i].tanh()),
        lambda p, t: torch.zeros_like(t[i]).scatter(a, p[w].view(shape).expand(t[i].shape), t[i]),
    )


@step
def own_positions(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Rows of a table by an index table: positions, kinds of tokens, relative positions."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim < 3:
        return None
    n, rows = x.shape[-2], x.shape[-2] + draw.below(3)
    w = draw.parameter(rows, x.shape[-1])
    numbers = draw.buffer(
        draw.pick(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.arange(n).flip(0))
    )
    return lambda p, t: t[i] + F.embedding(p[numbers], p[w])


@step
def read_numbers(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A branch on an entry, a count that is read, a number that comes back as a scale."""
    i = draw.tensor(tensors)
    if tensors[i].ndim < 2:
        return None
    at = (0, *(draw.below(n) for n in tensors[i].shape[1:]))
    way = draw.below(4)

    def run(p: State, t: list[Tensor]) -> Tensor:
        x = t[i]
        if way == 0:
            return -x if x[at].item() > 0 else x
        if way == 1:
            return x.cos() if x[0].flatten().tolist()[-1] > 0 else x.sin()
        if way == 2:
            return x * float(x[at].tanh())
        return x.exp().clamp(max=2) if x.mean() > 0 else x.relu()  # a sum tells nothing of any one

    return run
