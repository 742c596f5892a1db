"""What all checkpoints of one architecture share of their parameter graphs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import CheckpointError, MetanetError
from ._schema import ACTIVATIONS, ROLES, EdgeType, NodeType


@dataclass(frozen=True, kw_only=True)
class NodeRange:
    """Consecutive nodes: the neurons of one site, or the one source node of a 1-D tensor.

    Attributes:
        name: the tensor or operation that made the site.
        start: number of the first node.
        count: how many nodes.
        type: what they stand for.
        layer: longest path from the inputs, counted in sites.
        activation: what follows the site, an entry of :data:`ACTIVATIONS`.
        axis: how the neurons are made of groups, as JSON of an axis expression (``None`` for source nodes).
    """

    name: str
    start: int
    count: int
    type: NodeType
    layer: int
    activation: str = "none"
    axis: Any = None

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def keeps_identity(self) -> bool:
        """Whether each node is told apart by its position: inputs and outputs are, hidden neurons are not."""
        return self.type in (NodeType.INPUT, NodeType.OUTPUT)


@dataclass(frozen=True, kw_only=True)
class Block:
    """The edges of one tensor between two node ranges, in the tensor's own row-major order.

    Attributes:
        tensor: its name in the state dict; ``None`` for constant edges, whose value is 1.
        names: every name of the tensor (tied names share edges).
        start: number of the first edge.
        shape: sizes of the factors that the tensor's axes are made of, row-major.
        roles: for each factor one of :data:`ROLES`. Nodes are counted row-major over group and destination
            (group and source) factors.
        source, destination: numbers of the two node ranges in ``GraphTemplate.nodes``.
        type: what the parameter does.
        layer: layer of the destination.
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

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def stop(self) -> int:
        return self.start + self.count

    def size(self, role: str) -> int:
        """Product of the factors with this role."""
        return prod(n for n, r in zip(self.shape, self.roles, strict=True) if r == role)

    @property
    def dense_shape(self) -> tuple[int, int, int, int]:
        """``(group, destination, source, kernel)``."""
        return tuple(self.size(role) for role in ROLES)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The permutation that brings the factors into the order of :data:`ROLES`."""
        return tuple(sorted(range(len(self.roles)), key=lambda i: ROLES.index(self.roles[i])))

    @cached_property
    def in_order(self) -> bool:
        """Whether the tensor's own order is already that of the dense array, so that reading it is a view."""
        return self.order == tuple(range(len(self.roles)))

    def dense(self, edges: Float[Tensor, "batch edges dim"]) -> Float[Tensor, "batch group dst src kernel dim"]:
        """The block's part of all edges of a template as one array (a view wherever the order allows)."""
        batch, _, dim = edges.shape
        part = edges[:, self.start : self.stop]
        if not self.in_order:
            part = part.reshape(batch, *self.shape, dim).permute(0, *(1 + i for i in self.order), -1)
        return part.reshape(batch, *self.dense_shape, dim)

    def flat(self, array: Float[Tensor, "batch group dst src kernel dim"]) -> Float[Tensor, "batch edges dim"]:
        """The inverse of :meth:`dense`: back to the tensor's own order."""
        batch, dim = array.shape[0], array.shape[-1]
        if self.in_order:
            return array.reshape(batch, self.count, dim)
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        array = array.reshape(batch, *(self.shape[i] for i in self.order), dim)
        return array.permute(0, *(1 + i for i in inverse), -1).reshape(batch, self.count, dim)


@dataclass(frozen=True)
class GraphStack:
    """Graphs of one architecture as one dense stack: the shared template and each checkpoint's edge values.

    This is the form that metanetworks train on: no index arrays, every tensor a view of ``edge_attr``.

    Attributes:
        template: shared structure.
        edge_attr: ``(batch, edges, 1)``, float; edges in the template's order.
    """

    template: "GraphTemplate"
    edge_attr: Float[Tensor, "batch edges 1"]

    def __len__(self) -> int:
        return self.edge_attr.shape[0]

    def to(self, device: Any = None, *, dtype: torch.dtype | None = None, non_blocking: bool = False) -> "GraphStack":
        return GraphStack(self.template, self.edge_attr.to(device=device, dtype=dtype, non_blocking=non_blocking))


@dataclass(frozen=True, eq=False)
class GraphTemplate:
    """Structure of the parameter graph of one architecture, built once and shared by all its checkpoints.

    Attributes:
        nodes: the node ranges, in node order.
        blocks: the blocks, in edge order.
        dtypes: dtype of every tensor that is stored in edges, in the traced network, e.g. ``"bfloat16"``.
        shapes: shape of every tensor that is stored in edges.
        extras: names of state dict entries that travel unchanged (integer and bool buffers).
    """

    nodes: tuple[NodeRange, ...]
    blocks: tuple[Block, ...]
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    extras: tuple[str, ...] = ()

    @cached_property
    def num_nodes(self) -> int:
        return sum(r.count for r in self.nodes)

    @cached_property
    def num_edges(self) -> int:
        return sum(b.count for b in self.blocks)

    @cached_property
    def depth(self) -> int:
        """Layer of the deepest site."""
        return max((r.layer for r in self.nodes), default=0)

    @cached_property
    def fan_in(self) -> tuple[int, ...]:
        """For each block: how many of its entries reach one destination neuron."""
        return tuple(b.size("source") * b.size("kernel") for b in self.blocks)

    @cached_property
    def fan_out(self) -> tuple[int, ...]:
        """For each block: how many of its entries leave one source neuron."""
        return tuple(b.size("destination") * b.size("kernel") for b in self.blocks)

    @cached_property
    def static(self) -> dict[str, Tensor]:
        """Every tensor of the graph but the values: see the table in ``metanet/graph/_schema.py``."""
        nodes: dict[str, list[Tensor]] = {k: [] for k in ("type", "layer", "site", "width", "activation", "io")}
        for number, r in enumerate(self.nodes):
            nodes["type"].append(torch.full((r.count,), int(r.type)))
            nodes["layer"].append(torch.full((r.count,), r.layer))
            nodes["site"].append(torch.full((r.count,), number))
            nodes["width"].append(torch.full((r.count,), r.count))
            nodes["activation"].append(torch.full((r.count,), ACTIVATIONS.index(r.activation)))
            nodes["io"].append(torch.arange(r.count) if r.keeps_identity else torch.full((r.count,), -1))
        ends, kernels = [], []
        for b in self.blocks:
            ends.append(self._edge_ends(b))
            kernels.append(self._kernel_positions(b))
        per_block = {
            "edge_type": [int(b.type) for b in self.blocks],
            "edge_layer": [b.layer for b in self.blocks],
            "edge_tensor": list(range(len(self.blocks))),
            "fan_in": list(self.fan_in),
            "fan_out": list(self.fan_out),
        }
        counts = torch.tensor([b.count for b in self.blocks])
        out = {
            "edge_index": torch.cat(ends, 1) if ends else torch.empty(2, 0, dtype=torch.long),
            "kernel_pos": torch.cat(kernels) if kernels else torch.empty(0, 3, dtype=torch.long),
            "node_type": torch.cat(nodes["type"]),
            "node_layer": torch.cat(nodes["layer"]),
            "node_site": torch.cat(nodes["site"]),
            "node_width": torch.cat(nodes["width"]),
            "activation": torch.cat(nodes["activation"]),
            "io_position": torch.cat(nodes["io"]),
            "depth": torch.tensor([self.depth]),
        }
        for key, values in per_block.items():
            out[key] = torch.repeat_interleave(torch.tensor(values, dtype=torch.long), counts)
        return out

    def kernel_positions(self, block: Block) -> Int[Tensor, "kernel 3"]:
        """Position of each kernel entry in the order of the dense array; -1 where there is no such axis."""
        sizes = [n for n, r in zip(block.shape, block.roles, strict=True) if r == "kernel"]
        if len(sizes) > 3:  # only the last three axes are told apart
            sizes = [prod(sizes[:-2]), *sizes[-2:]]
        count = prod(sizes)
        out = torch.full((count, 3), -1)
        if sizes:
            out[:, : len(sizes)] = torch.stack(torch.unravel_index(torch.arange(count), tuple(sizes)), 1)
        return out

    def _edge_ends(self, block: Block) -> Int[Tensor, "2 edges"]:
        group, dst, src, kernel = block.dense_shape
        cells = torch.arange(group * dst * src * kernel)
        g, d, s, _ = torch.unravel_index(cells, (group, dst, src, kernel))
        ends = torch.stack(
            [self.nodes[block.source].start + g * src + s, self.nodes[block.destination].start + g * dst + d]
        )
        return block.flat(ends.T.reshape(1, group, dst, src, kernel, 2))[0].T

    def _kernel_positions(self, block: Block) -> Int[Tensor, "edges 3"]:
        group, dst, src, kernel = block.dense_shape
        positions = self.kernel_positions(block).expand(1, group, dst, src, kernel, 3)
        return block.flat(positions)[0]

    # ---------------------------------------------------------------- values in and out

    def values(self, state: Mapping[str, Tensor]) -> Float[Tensor, "*batch edges 1"]:
        """The edge values of one state dict, or of many stacked ones (a leading batch axis on every tensor).

        Args:
            state: tensors of the architecture's shapes, or all of them with one more leading axis.

        Returns:
            ``(edges, 1)`` or ``(batch, edges, 1)``, float64 if any tensor is, else float32: float16, bfloat16 and
            float8 widen exactly.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        batch = self._batch(state)
        parts: list[Tensor] = []
        dtype = torch.float64 if any(state[n].dtype == torch.float64 for n in self.shapes) else torch.float32
        for b in self.blocks:
            if b.tensor is None:
                parts.append(torch.ones(*batch, b.count, dtype=dtype))
            else:
                parts.append(state[b.tensor].detach().to(dtype).reshape(*batch, b.count))
        device = next((p.device for p, b in zip(parts, self.blocks, strict=True) if b.tensor is not None), None)
        return torch.cat([p.to(device) for p in parts], -1).unsqueeze(-1)

    def stack(self, state: Mapping[str, Tensor]) -> GraphStack:
        """Many stacked checkpoints (``[batch, ...]`` tensors) as a dense :class:`GraphStack`."""
        values = self.values(state)
        return GraphStack(self, values if values.ndim == 3 else values.unsqueeze(0))

    def tensors(
        self, values: Float[Tensor, "*batch edges 1"], dtypes: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """The inverse of :meth:`values`: every tensor (under all its names) in its own shape.

        Args:
            dtypes: of the checkpoint, by tensor; tensors left out keep the dtype of ``values``.
        """
        out: dict[str, Tensor] = {}
        for b in self.blocks:
            if b.tensor is None:
                continue
            part = values[..., b.start : b.stop, 0].reshape(*values.shape[:-2], *self.shapes[b.tensor])
            if dtypes and b.tensor in dtypes:
                part = part.to(getattr(torch, dtypes[b.tensor]))
            for name in b.names:
                out[name] = part
        return out

    def _batch(self, state: Mapping[str, Tensor]) -> tuple[int, ...]:
        problems, batches = [], set()
        for name, shape in self.shapes.items():
            if name not in state:
                problems.append(f"  missing  {name} {shape}")
                continue
            got = tuple(state[name].shape)
            if got == shape:
                batches.add(())
            elif got[1:] == shape:
                batches.add(got[:1])
            else:
                problems.append(f"  shape    {name} is {got}, expected {shape}")
        if problems:
            raise CheckpointError("checkpoint does not fit the architecture:\n" + "\n".join(problems))
        if len(batches) > 1:
            raise CheckpointError(f"stacked tensors disagree about the number of checkpoints: {sorted(batches)}")
        return batches.pop() if batches else ()

    # ---------------------------------------------------------------- JSON

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        return {
            "nodes": [asdict(r) for r in self.nodes],
            "blocks": [asdict(b) for b in self.blocks],
            "dtypes": dict(self.dtypes),
            "shapes": {k: list(v) for k, v in self.shapes.items()},
            "extras": list(self.extras),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GraphTemplate":
        try:
            nodes = tuple(NodeRange(**{**r, "type": NodeType(r["type"])}) for r in data["nodes"])
            blocks = tuple(
                Block(**{**b, "names": tuple(b["names"]), "shape": tuple(b["shape"]), "roles": tuple(b["roles"]),
                         "type": EdgeType(b["type"])})
                for b in data["blocks"]
            )  # fmt: skip
            shapes = {k: tuple(v) for k, v in data["shapes"].items()}
            return cls(nodes, blocks, dict(data["dtypes"]), shapes, tuple(data["extras"]))
        except (KeyError, TypeError, ValueError) as e:
            raise MetanetError(f"not a graph template: {type(e).__name__}: {e}") from e
