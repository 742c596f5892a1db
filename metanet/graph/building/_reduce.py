"""Sums, means and largest ones over neurons: neurons themselves, unless they only normalise what
they sum up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._flows import Neurons, distinct, place, unique_rows, varies
from ._made import Making
from ._pool import Pool
from ..template._schema import EdgeType, NodeType
from ._uses import Uses

if TYPE_CHECKING:
    from ._walk import Walk

_SUMS = ("aten.sum", "aten.mean", "aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")


@dataclass(frozen=True, eq=False)
class Reduction:
    """Nodes ``ids`` ``(u,)`` of the sums over ``rows`` ``(u, n)``; their edges wait until something
    reads them."""

    rows: Tensor
    ids: Tensor
    type: EdgeType


def reduce(
    walk: Walk, name: str, part: Neurons, back: Sequence[int | None], shape: Sequence[int]
) -> Neurons | None:
    """Neurons over the axes that are left (``back`` says where they go); ``None`` if none of these
    tells any apart."""
    ids, rank = walk.pool.find(part.ids), range(part.ids.ndim)
    gone = [a for a in rank if back[a] is None]
    kept = [a for a in rank if back[a] is not None]
    if part.hidden or not any(varies(ids, a) for a in kept):
        return None
    small = ids[tuple(slice(None) if varies(ids, a) else slice(0, 1) for a in rank)]
    table = small.permute(*kept, *gone)
    sizes = table.shape[: len(kept)]
    rows, inverse = unique_rows(table.reshape(sizes.numel(), -1))
    if len(rows) == 1:
        return None
    flat = (rows.reshape(-1),)
    made = walk.made.known(name, flat)
    if made is None:
        summed = name in _SUMS
        type = NodeType.SUM if summed else NodeType.PRODUCT
        groups = [walk.pool.groups[i] if i >= 0 else "" for i in rows.amax(1).tolist()]
        site = walk.pool.new(f"{name.removeprefix('aten.')} {len(walk.pool.sites)}", len(rows), type,
                             walk.pool.layer(rows) + 1, groups)  # fmt: skip
        made = site.ids
        walk.made.add(Making(name, flat, made, walk.uses.module))
        walk.reductions.append(
            Reduction(rows, made, EdgeType.RESIDUAL if summed else EdgeType.JOINT)
        )
    full = (
        made[inverse]
        .view(*sizes, *(1 for _ in gone))
        .permute(*torch.tensor([*kept, *gone]).argsort().tolist())
    )
    return Neurons(place(full.expand(ids.shape), back, shape))


def normalises(walk: Walk, statistic: Tensor, neurons: Tensor) -> bool:
    """Whether the first are sums over the second, by which these are shifted or scaled."""
    own, others = walk.pool.find(distinct(statistic)), walk.pool.find(distinct(neurons))
    for r in walk.reductions:
        if torch.isin(own, walk.pool.find(r.ids)).all():
            chosen = r.rows[torch.isin(walk.pool.find(r.ids), own)]
            return bool(torch.isin(walk.pool.find(distinct(chosen)), others).all())
    return False


def connect_reductions(pool: Pool, uses: Uses, reductions: Sequence[Reduction]) -> None:
    """Edges to those that something reads, the last first."""
    read = torch.zeros(len(pool), dtype=torch.bool)
    for use in uses.found:
        for side in (use.source, use.destination):
            read[pool.find(distinct(side))] = True
    for _, _, source, destination in uses.constant:
        read[pool.find(source)] = True
        read[pool.find(destination)] = True
    for r in reversed(reductions):
        ids = pool.find(r.ids)
        if read[ids].any():
            uses.connect(r.type, r.rows, ids.unsqueeze(-1).expand(r.rows.shape))
            read[pool.find(distinct(r.rows))] = True
