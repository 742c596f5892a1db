"""Masks and index tables that a network owns, as a fresh network has them: ones, and 0..n."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, many, p

MASKED = {"stem": "h, .", "mask": "h", "head": "., h"}


def masked(mask: Tensor, run) -> Made:
    """Two layers; ``run`` masks the units between them."""

    def whole(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(run(m, m.stem(x).tanh()))

    return Net(whole, stem=nn.Linear(4, 6), mask=mask, head=nn.Linear(6, 3)), *many(2, 5, 4)


@construct("h 6", MASKED)
def mask_of_truth_values() -> Made:
    """Units that are pruned."""
    return masked(torch.ones(6, dtype=torch.bool), lambda m, h: h * m.mask)


@construct("h 6", MASKED)
def mask_of_integers() -> Made:
    """The same with integers, compared."""
    return masked(
        torch.ones(6, dtype=torch.int64), lambda m, h: torch.where(m.mask > 0, h, h.sin())
    )


@construct("h 6", MASKED)
def mask_filled() -> Made:
    """Units that are replaced before a softmax over all."""
    return masked(
        torch.zeros(6, dtype=torch.bool), lambda m, h: h.masked_fill(m.mask, -1e9).softmax(-1)
    )


@construct("h 6", {**MASKED, "mask": "h, 1"})
def mask_by_a_sum() -> Made:
    """A mask that itself is summed up, to divide by the number of units that are left."""
    return masked(
        torch.ones(6, 1, dtype=torch.bool),
        lambda m, h: h * m.mask.view(-1) / m.mask.sum().clamp(min=1),
    )


@construct("a 6, b 5", {"0": "a, .", "1": "b, a", "keep": "b, a", "2": "., b"})
def mask_of_weights() -> Made:
    """Weights that are pruned one by one."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        h = m._modules["0"](x).relu()
        layer = m._modules["1"]
        return m._modules["2"](F.linear(h, layer.weight * m.keep, layer.bias).relu())

    layers = {"0": nn.Linear(4, 6), "1": nn.Linear(6, 5), "2": nn.Linear(5, 3)}
    return Net(run, keep=torch.ones(5, 6, dtype=torch.uint8), **layers), *many(2, 5, 4)


@construct(
    "heads 2, qk 3 per heads, vo 3 per heads",
    {
        "q k": "heads*qk, .",
        "v": "heads*vo, .",
        "on": "heads",
        "dims": "heads, vo",
        "out": "., heads*vo",
    },
)
def masks_of_heads() -> Made:
    """Heads that are pruned, and dims within the others."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 3)).transpose(1, 2) for f in (m.q, m.k, m.v))
        causal = m.past[: x.shape[1], : x.shape[1]]
        weights = (q @ k.mT).masked_fill(~causal, -1e9).softmax(-1) * m.on[:, None, None]
        return m.out(((weights @ v).transpose(1, 2) * m.dims).flatten(2))

    layers = {name: nn.Linear(4, 6) for name in "qkv"}
    masks = {"on": torch.ones(2, dtype=torch.bool), "dims": torch.ones(2, 3, dtype=torch.int32)}
    past = torch.ones(9, 9, dtype=torch.bool).tril()
    return Net(run, **layers, **masks, past=past, out=nn.Linear(6, 3)), *many(2, 5, 4)


INDEXED = {"stem": "., .", "index": "h", "head": "., h"}


@construct("h 6", INDEXED)
def index_of_units() -> Made:
    """Units in an order that a table says: those of the first layer are told apart, those that come
    out follow it."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(m.stem(x).tanh()[..., m.index])

    return Net(run, stem=nn.Linear(4, 6), index=torch.arange(6), head=nn.Linear(6, 3)), *many(
        2, 5, 4
    )


@construct("h 6", INDEXED)
def index_all_alike() -> Made:
    """The same with a table of zeros, by another operation."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(m.stem(x).tanh().index_select(-1, m.index))

    return Net(
        run, stem=nn.Linear(4, 5), index=torch.zeros(6, dtype=torch.int64), head=nn.Linear(6, 3)
    ), *many(2, 5, 4)


@construct("h 6", {"stem": "h, .", "index": "h", "head": "., ."})
def index_of_segments() -> Made:
    """Units are summed up in the places that a table says."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        h = m.stem(x).tanh()
        return m.head(h.new_zeros(*h.shape[:-1], 4).index_add(-1, m.index, h).relu())

    return Net(
        run, stem=nn.Linear(4, 6), index=torch.zeros(6, dtype=torch.int64), head=nn.Linear(4, 3)
    ), *many(2, 5, 4)


@construct("h 6", {"stem": "h, .", "table": "., h", "head": "., h"})
def index_of_positions() -> Made:
    """Positions 0..n and kinds of tokens, all 0, look up rows of one table."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        rows = m.table[m.positions[: x.shape[1]]] + F.embedding(m.kinds[:, : x.shape[1]], m.table)
        return m.head((m.stem(x) + rows).relu())

    tables = {"positions": torch.arange(9), "kinds": torch.zeros(1, 9, dtype=torch.int64)}
    return Net(run, stem=nn.Linear(4, 6), table=p(9, 6), head=nn.Linear(6, 3), **tables), *many(
        2, 5, 4
    )


@construct(
    "heads 2, qk 3 per heads, vo 3 per heads",
    {"q k": "heads*qk, .", "v": "heads*vo, .", "table": "., heads", "out": "., heads*vo"},
)
def index_of_relative_positions() -> Made:
    """A bias for each head and distance of tokens, as in windows of images."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 3)).transpose(1, 2) for f in (m.q, m.k, m.v))
        bias = m.table[m.index.view(-1)].view(5, 5, 2).permute(2, 0, 1)
        return m.out(((q @ k.mT + bias).softmax(-1) @ v).transpose(1, 2).flatten(2))

    index = torch.arange(5)[:, None] - torch.arange(5) + 4
    layers = {name: nn.Linear(4, 6) for name in "qkv"}
    return (
        Net(run, **layers, index=index, table=p(9, 2), out=nn.Linear(6, 3)),
        *many(2, 5, 4)[:1],
        (torch.randn(3, 5, 4),),
    )
