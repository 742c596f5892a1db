"""Node ranges and blocks: what a graph template is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from ._schema import ROLES, EdgeType, NodeType


@dataclass(frozen=True, kw_only=True)
class NodeRange:
    """Consecutive nodes of one kind.

    The neurons of a site that share one fate, or the source nodes of a tensor.

    Attributes:
        name: the tensor or operation that made them.
        start: number of the first node.
        count: how many nodes.
        type: what they stand for.
        layer: longest path from the inputs, counted in sites.
        activation: what follows the site, an entry of :data:`ACTIVATIONS`.
        group: the group that moves them, "" if they keep their place.
        width: neurons that a node stands for all together; 0: a node is a neuron.
    """

    name: str
    start: int
    count: int
    type: NodeType
    layer: int
    activation: str = "none"
    group: str = ""
    width: int = 0

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def keeps_identity(self) -> bool:
        """Whether each node is told apart by its position: inputs and outputs are, hidden neurons
        are not."""
        return self.type in (NodeType.INPUT, NodeType.OUTPUT)


@dataclass(frozen=True, kw_only=True)
class Block:
    """The edges of one tensor, or of one part of it, between two node ranges.

    The entries of a block are counted by digits, row-major: edge ``start + sum(strides * digits)``
    runs from node ``source_start + sum(source_strides * digits)`` of one range to a node of the
    other, likewise. Strides are left out where they are the usual ones.

    Attributes:
        tensor: its name in the state dict; ``None`` for constant edges, whose value is 1.
        names: every name of the tensor (tied names share edges).
        start: number of the first edge.
        shape: sizes of the digits.
        roles: for each digit one of :data:`ROLES`.
        source, destination: numbers of the two node ranges in ``GraphTemplate.nodes``.
        type: what the parameter does.
        layer: layer of the destination.
        strides: of the edges; ``None``: the block's edges are consecutive.
        source_start, source_strides, destination_start, destination_strides: of the nodes;
            ``None``: row-major over the digits that are groups and sources (destinations).
        plain: whether the nodes of both sides, in the order of the dense array, are all nodes of
            their ranges in turn.
    """

    tensor: str | None
    names: tuple[str, ...]
    start: int
    shape: tuple[int, ...]
    roles: tuple[str, ...]
    source: int
    destination: int
    type: EdgeType
    layer: int
    strides: tuple[int, ...] | None = None
    source_start: int = 0
    source_strides: tuple[int, ...] | None = None
    destination_start: int = 0
    destination_strides: tuple[int, ...] | None = None
    plain: bool = True

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def stop(self) -> int:
        """One past the last edge."""
        return (
            self.start
            + sum((n - 1) * s for n, s in zip(self.shape, self.edge_strides, strict=True))
            + 1
        )

    def size(self, role: str) -> int:
        """Product of the digits with this role."""
        return prod(n for n, r in zip(self.shape, self.roles, strict=True) if r == role)

    @property
    def dense_shape(self) -> tuple[int, int, int, int]:
        """``(group, destination, source, kernel)``."""
        group, destination, source, kernel = map(self.size, ROLES)
        return group, destination, source, kernel

    @cached_property
    def edge_strides(self) -> tuple[int, ...]:
        return self.strides if self.strides is not None else row_major(self.shape)

    def node_strides(self, side: str) -> tuple[int, ...]:
        """Steps of the node numbers per digit; ``side`` is ``"source"`` or ``"destination"``."""
        given = self.source_strides if side == "source" else self.destination_strides
        if given is not None:
            return given
        own = [r in ("group", side) for r in self.roles]
        steps = iter(row_major([n for n, o in zip(self.shape, own, strict=True) if o]))
        return tuple(next(steps) if o else 0 for o in own)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The permutation that brings the digits into the order of :data:`ROLES`, faster nodes
        last."""
        to, from_ = self.node_strides("destination"), self.node_strides("source")
        return tuple(
            sorted(
                range(len(self.roles)),
                key=lambda i: (ROLES.index(self.roles[i]), -(to[i] or from_[i]), i),
            )
        )

    @cached_property
    def in_order(self) -> bool:
        """Whether the tensor's own order is already that of the dense array, so that reading it is
        a view."""
        return self.order == tuple(range(len(self.roles)))

    def edges(self) -> Int[Tensor, " count"]:
        """Numbers of the block's edges."""
        return strided_integers(self.shape, self.edge_strides, self.start).reshape(-1)

    def nodes(self, side: str) -> Int[Tensor, " nodes"]:
        """Positions in the range of the nodes of one side, in the order of the dense array (group,
        then side)."""
        start = self.source_start if side == "source" else self.destination_start
        digits = [i for i in self.order if self.roles[i] in ("group", side)]
        steps = self.node_strides(side)
        return strided_integers(
            [self.shape[i] for i in digits], [steps[i] for i in digits], start
        ).reshape(-1)

    def dense(
        self, edges: Shaped[Tensor, "batch edges dim"]
    ) -> Shaped[Tensor, "batch group dst src kernel dim"]:
        """The block's part of something about all edges of a template (values, numbers) as one
        array, a view wherever the order allows."""
        batch, _, dim = edges.shape
        if self.strides is None:
            part = edges[:, self.start : self.start + self.count]
            if not self.in_order:
                part = part.reshape(batch, *self.shape, dim).permute(
                    0, *(1 + i for i in self.order), -1
                )
        else:
            b, e, d = edges.stride()
            steps = (b, *(e * self.strides[i] for i in self.order), d)
            sizes = (batch, *(self.shape[i] for i in self.order), dim)
            part = edges.as_strided(sizes, steps, edges.storage_offset() + self.start * e)
        return part.reshape(batch, *self.dense_shape, dim)

    def flat(
        self, array: Shaped[Tensor, "batch group dst src kernel dim"]
    ) -> Shaped[Tensor, "batch count dim"]:
        """The inverse of :meth:`dense`: back to the order of :meth:`edges`."""
        batch, dim = array.shape[0], array.shape[-1]
        if self.in_order:
            return array.reshape(batch, self.count, dim)
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        array = array.reshape(batch, *(self.shape[i] for i in self.order), dim)
        return array.permute(0, *(1 + i for i in inverse), -1).reshape(batch, self.count, dim)

    def simplified(self, nodes: Sequence[NodeRange]) -> "Block":
        """The same block with everything left out that is as usual."""
        plain = True
        changes: dict[str, Any] = {}
        if self.strides == row_major(self.shape):
            changes["strides"] = None
        for side, number in (("source", self.source), ("destination", self.destination)):
            count = self.size("group") * self.size(side)
            plain &= count == nodes[number].count and bool(
                (self.nodes(side) == torch.arange(count)).all()
            )
            start = self.source_start if side == "source" else self.destination_start
            without: dict[str, Any] = {f"{side}_strides": None}
            usual = replace(self, **without).node_strides(side)
            if start == 0 and usual == self.node_strides(side):
                changes[f"{side}_strides"] = None
        return replace(self, plain=plain, **changes)


def window(values: Shaped[Tensor, " edges"], block: Block) -> Shaped[Tensor, "..."]:
    """A block's part of something about all edges, over its digits."""
    step = values.stride(0)
    strides = [s * step for s in block.edge_strides]
    return values.as_strided(block.shape, strides, values.storage_offset() + block.start * step)


def row_major(sizes: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous array."""
    return tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))


def strided_integers(sizes: Sequence[int], strides: Sequence[int], offset: int = 0) -> Tensor:
    """``offset + sum(strides * digits)`` as an array; axes of stride 0 are not written out."""
    out = torch.tensor(offset)
    for axis, (n, s) in enumerate(zip(sizes, strides, strict=True)):
        step = torch.arange(n) * s if s else torch.zeros(1, dtype=torch.long)
        out = out + step.view(*(-1 if a == axis else 1 for a in range(len(sizes))))
    return out.expand(*sizes) if len(sizes) else out
