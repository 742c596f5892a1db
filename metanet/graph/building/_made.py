"""What was made of what, so that the same sums and products are not made twice, and recurrences are
seen as such."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..template._schema import EdgeType
from ._pool import Pool


@dataclass(frozen=True, eq=False)
class Making:
    """Neurons made one by one of operands.

    Attributes:
        how: ``"add"``, ``"multiply"``, ``"other"``, or ``"copy"``.
        operands: their nodes as they were then, ``(n,)`` each.
        ids: what was made, ``(n,)``.
        module: whose forward made it.
    """

    how: str
    operands: tuple[Tensor, ...]
    ids: Tensor
    module: str


@dataclass(frozen=True, eq=False)
class Reduction:
    """Nodes ``ids`` ``(u,)`` of the sums over ``rows`` ``(u, n)``; their edges wait until something
    reads them."""

    rows: Tensor
    ids: Tensor
    type: EdgeType


@dataclass
class Made:
    """All of them. Two are compared by random sums of their nodes, kept until nodes are united."""

    pool: Pool
    makings: list[Making] = field(default_factory=list)
    _sums: list[tuple[int, ...]] = field(
        default_factory=list
    )  # of what was made, and of each operand
    _index: dict[tuple, list[int]] = field(default_factory=dict)
    _unions: int = 0
    _weights: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def add(self, making: Making) -> None:
        self.makings.append(making)

    def known(self, how: str, operands: Sequence[Tensor]) -> Tensor | None:
        """What was made of the same operands before."""
        self._refresh()
        want = tuple(self._sum(self.pool.find(o)) for o in operands)
        for i in self._index.get((how, len(operands[0]), *want), ()):
            then = self.makings[i]
            if all(
                torch.equal(self.pool.find(e), o)
                for e, o in zip(then.operands, operands, strict=True)
            ):
                return self.pool.find(then.ids)
        return None

    def with_operand(self, how: str, operand: Tensor, side: int, module: str) -> Iterator[Making]:
        """What a module made before with one operand the same, the last first."""
        self._refresh()
        want = self._sum(operand)
        for making, sums in zip(reversed(self.makings), reversed(self._sums), strict=True):
            same = making.how == how and making.module == module and sums[side + 1] == want
            if same and torch.equal(self.pool.find(making.operands[side]), operand):
                yield making

    def twice(self) -> Iterator[tuple[Making, Making]]:
        """Pairs that turned out to be the same neurons although their operands are not."""
        self._refresh()
        latest: dict[tuple[str, int, int], int] = {}
        for i, (making, sums) in enumerate(zip(self.makings, self._sums, strict=True)):
            key = (making.how, len(making.ids), sums[0])
            if key in latest and self._sums[latest[key]] != sums:
                yield self.makings[latest[key]], making
            latest[key] = i

    def alike(self) -> Iterator[tuple[Making, Making]]:
        """Pairs that turned out to be made of the same operands."""
        self._refresh()
        for numbers in list(self._index.values()):
            for i in numbers[1:]:
                if self._sums[i] != self._sums[numbers[0]]:
                    yield self.makings[numbers[0]], self.makings[i]

    def _sum(self, ids: Tensor) -> int:
        x = ids.numpy().astype(np.int64)
        if len(x) > len(self._weights):
            self._weights = np.random.default_rng(0).integers(-(2**62), 2**62, 2 * len(x))
        return int((x * self._weights[: len(x)]).sum())

    def _refresh(self) -> None:
        if self._unions != self.pool.unions:
            self._sums, self._index, self._unions = [], {}, self.pool.unions
        for i in range(len(self._sums), len(self.makings)):
            making = self.makings[i]
            sums = tuple(self._sum(self.pool.find(x)) for x in (making.ids, *making.operands))
            self._sums.append(sums)
            self._index.setdefault((making.how, len(making.operands[0]), *sums[1:]), []).append(i)
