"""What all checkpoints of one architecture share of their parameter graphs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...checkpoints import Checkpoint
from ...documents import validated
from ...errors import MetanetError
from ._blocks import Block, NodeRange, strided_integers, window
from ._documents import CoarseFile, TemplateFile, block_of, check_template, node_range_of
from ._fitting import Expected, FittingTensors, fitting
from ._schema import ACTIVATIONS, parts_of
from ._summary import HOLDS_SUMMARIES, summaries


@dataclass(frozen=True)
class GraphStack:
    """Graphs of one architecture as one dense stack.

    The shared template and each checkpoint's edge values.

    This is the form that metanetworks train on: no index arrays, every tensor a view of
    ``edge_attr``.

    Attributes:
        template: shared structure.
        edge_attr: ``(batch, edges, 1)``, float; edges in the template's order.
    """

    template: "GraphTemplate"
    edge_attr: Float[Tensor, "batch edges 1"]

    def __len__(self) -> int:
        return self.edge_attr.shape[0]

    def to(
        self, device: Any = None, *, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> "GraphStack":
        return GraphStack(
            self.template, self.edge_attr.to(device=device, dtype=dtype, non_blocking=non_blocking)
        )


@dataclass(frozen=True, eq=False)
class GraphTemplate:
    """The structure that all parameter graphs of one architecture share.

    It is built once.

    Attributes:
        nodes: the node ranges, in node order.
        blocks: the blocks, in edge order; those of one tensor lie in one stretch of edges.
        dtypes: dtype of every tensor that is stored in edges, in the traced network, e.g.
            ``"bfloat16"``.
        shapes: shape of every tensor that is stored in edges.
        extras: names of state dict entries that travel unchanged (integer and bool buffers).
        groups: names of the groups that move nodes; ``node_group`` counts them.
        fine: of a coarse template (:meth:`coarse`) the one it was made from.
    """

    nodes: tuple[NodeRange, ...]
    blocks: tuple[Block, ...]
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    fine: "GraphTemplate | None" = None

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

    def parts(self, tensor: str) -> int:
        """Edges of one entry: two where the tensor is complex; the edges of a coarse template are
        no entries."""
        return parts_of(self.dtypes[tensor]) if self.fine is None else 1

    @cached_property
    def stretches(self) -> tuple[tuple[str | None, tuple[str, ...], int, int], ...]:
        """Consecutive edges: ``(tensor, its names, first edge, count)``; constant edges (no tensor)
        block by block."""
        found: dict[Any, tuple[str | None, tuple[str, ...], int, int]] = {}
        for b in self.blocks:
            if b.tensor is None:
                found[b.start] = (None, (), b.start, b.count)
            elif b.tensor in found:
                name, names, start, count = found[b.tensor]
                found[b.tensor] = (name, names, min(start, b.start), count)
            else:
                found[b.tensor] = (
                    b.tensor,
                    b.names,
                    b.start,
                    prod(self.shapes[b.tensor]) * self.parts(b.tensor),
                )
        return tuple(sorted(found.values(), key=lambda s: (s[2], s[3])))

    @cached_property
    def static(self) -> dict[str, Tensor]:
        """Every tensor of the graph but the values: see the table in
        ``metanet/graph/template/_schema.py``."""
        numbers = {name: i for i, name in enumerate(self.groups)}
        rows = [
            (
                int(r.type),
                r.layer,
                i,
                r.width or r.count,
                numbers.get(r.group, -1),
                ACTIVATIONS.index(r.activation),
            )
            for i, r in enumerate(self.nodes)
        ]
        counts = torch.tensor([r.count for r in self.nodes], dtype=torch.long)
        table = torch.tensor(rows, dtype=torch.long).view(-1, 6).repeat_interleave(counts, 0)
        names = ("node_type", "node_layer", "node_site", "node_width", "node_group", "activation")
        out = {name: table[:, i].contiguous() for i, name in enumerate(names)}
        out["io_position"] = self.io_position
        out["depth"] = torch.tensor([self.depth])
        out["edge_index"] = torch.empty(2, self.num_edges, dtype=torch.long)
        out["kernel_pos"] = torch.full((self.num_edges, 3), -1)
        per_block = {
            "edge_type": [int(b.type) for b in self.blocks],
            "edge_layer": [b.layer for b in self.blocks],
            "edge_tensor": list(range(len(self.blocks))),
            "fan_in": list(self.fan_in),
            "fan_out": list(self.fan_out),
        }
        for key in per_block:
            out[key] = torch.empty(self.num_edges, dtype=torch.long)
        for number, b in enumerate(self.blocks):
            for row, side, r in ((0, "source", b.source), (1, "destination", b.destination)):
                start = self.nodes[r].start + (b.source_start if row == 0 else b.destination_start)
                window(out["edge_index"][row], b).copy_(
                    strided_integers(b.shape, b.node_strides(side), start)
                )
            for key, values in per_block.items():
                window(out[key], b).fill_(values[number])
            self._put_kernel_positions(out["kernel_pos"], b)
        return out

    @cached_property
    def io_position(self) -> Int[Tensor, " nodes"]:
        """Position of every input and output neuron, -1 for all other nodes."""
        found = [
            torch.arange(r.count) if r.keeps_identity else torch.full((r.count,), -1)
            for r in self.nodes
        ]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.long)

    def kernel_positions(self, block: Block) -> Int[Tensor, "kernel 3"]:
        """Position of each kernel entry in the order of the dense array; -1 where there is no such
        axis."""
        sizes = [n for n, r in zip(block.shape, block.roles, strict=True) if r == "kernel"]
        if len(sizes) > 3:  # only the last three axes are told apart
            sizes = [prod(sizes[:-2]), *sizes[-2:]]
        count = prod(sizes)
        out = torch.full((count, 3), -1)
        if sizes:
            out[:, : len(sizes)] = torch.stack(
                torch.unravel_index(torch.arange(count), tuple(sizes)), 1
            )
        return out

    def _put_kernel_positions(self, out: Int[Tensor, "edges 3"], block: Block) -> None:
        kernel = [i for i, r in enumerate(block.roles) if r == "kernel"]
        if kernel:
            positions = self.kernel_positions(block)
            shape = [n if i in kernel else 1 for i, n in enumerate(block.shape)]
            for column in range(3):
                window(out[:, column], block).copy_(
                    positions[:, column].view(shape).expand(block.shape)
                )

    def coarse(self) -> "GraphTemplate":
        """One node per group of neurons (and per range that keeps its place), one edge per block.

        For networks whose neuron graph would not fit into memory. Edges hold
        :data:`~metanet.graph.SUMMARY` features of the block's entries in place of the entries, so
        that there is no way back to the checkpoint.
        """
        number: dict[str, int] = {}
        nodes: list[NodeRange] = []
        of_range = []
        for r in self.nodes:
            key = r.group or f" {len(nodes)}"
            at = number.setdefault(key, len(nodes))
            if at == len(nodes):
                nodes.append(replace(r, name=r.group or r.name, start=at, count=1, width=0))
            nodes[at] = replace(nodes[at], width=max(nodes[at].width, r.count))
            of_range.append(at)
        blocks = tuple(
            Block(
                tensor=b.tensor,
                names=b.names,
                start=i,
                shape=(),
                roles=(),
                source=of_range[b.source],
                destination=of_range[b.destination],
                type=b.type,
                layer=b.layer,
            )
            for i, b in enumerate(self.blocks)
        )
        shapes = dict.fromkeys(self.shapes, ())
        return GraphTemplate(
            tuple(nodes), blocks, self.dtypes, shapes, self.extras, self.groups, self
        )

    # ---------------------------------------------------------------- values in and out

    def values(self, state: Mapping[str, Tensor]) -> Float[Tensor, "*batch edges features"]:
        """The edge values of one state dict, or of many stacked ones (a leading batch axis on every
        tensor).

        Args:
            state: tensors of the architecture's shapes, or all of them with one more leading axis.
                Of tied names one is enough. Tensors with other names are not looked at.

        Returns:
            ``(edges, 1)`` or ``(batch, edges, 1)``, float64 if any tensor is (or complex128), else
            float32: float16, bfloat16, float8 and complex32 widen exactly. Of a coarse template
            the features of :data:`~metanet.graph.SUMMARY`. Gradients pass to tensors that require
            them, save from a coarse template.

        Raises:
            CheckpointError: a tensor is missing, has another shape, or holds no floating-point
                numbers (no complex ones where the architecture has complex ones); tied names have
                different values.
        """
        if self.fine is not None:
            return self.fine.summaries(state)
        chosen = self._fitting(state)
        batch, is_lazy = chosen.batch, isinstance(state, Checkpoint)
        tensors = chosen if is_lazy else dict(chosen)  # of a lazy one a tensor at a time is read
        is_double = any(t.dtype == torch.float64 for t in tensors.values())
        dtype = torch.float64 if is_double else torch.float32
        parts: list[Tensor] = []
        device = next((t.device for t in tensors.values()), None)
        for name, _, _, count in self.stretches:
            if name is None:
                parts.append(torch.ones((*batch, count), dtype=dtype, device=device))
            else:
                parts.append(tensors[name].to(device, dtype).reshape((*batch, count)))
        if not parts:
            return torch.empty(*batch, 0, 1, dtype=dtype)
        return torch.cat(parts, -1).unsqueeze(-1)

    def summaries(self, state: Mapping[str, Tensor]) -> Float[Tensor, "*batch blocks features"]:
        """:data:`~metanet.graph.SUMMARY` of every block, one tensor in memory at a time."""
        starts = {name: start for name, _, start, _ in self.stretches if name is not None}
        chosen = self._fitting(state)
        return summaries(self.blocks, starts, chosen, chosen.batch)

    def stack(self, state: Mapping[str, Tensor]) -> GraphStack:
        """Many stacked checkpoints (``[batch, ...]`` tensors) as a dense :class:`GraphStack`."""
        values = self.values(state)
        return GraphStack(self, values if values.ndim == 3 else values.unsqueeze(0))

    def tensors(
        self, values: Float[Tensor, "*batch edges 1"], dtypes: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """The inverse of :meth:`values`: every tensor (under all its names) in its own shape.

        Args:
            dtypes: of the checkpoint, by tensor; tensors left out keep the dtype (and complex ones
                the precision) of ``values``.

        Raises:
            MetanetError: of a coarse template.
        """
        if self.fine is not None:
            raise MetanetError(HOLDS_SUMMARIES)
        out: dict[str, Tensor] = {}
        for name, names, start, count in self.stretches:
            if name is None:
                continue
            given = [getattr(torch, dtypes[n]) for n in names if n in dtypes] if dtypes else []
            part = values[..., start : start + count, 0]
            part = part.to(given[0].to_real()) if given else part
            shape = (*values.shape[:-2], *self.shapes[name])
            if self.parts(name) == 2:
                pairs = part.reshape((*shape, 2)).clone(
                    memory_format=torch.contiguous_format
                )  # at an even address
                part = torch.view_as_complex(pairs)
            else:
                part = part.reshape(shape)
            for each in names:
                out[each] = part
        return out

    def _fitting(self, state: Mapping[str, Tensor]) -> FittingTensors:
        """One real tensor for each stretch of edges."""
        expected = [
            Expected(name, names, tuple(self.shapes[name]), self.dtypes[name])
            for name, names, _, _ in self.stretches
            if name is not None
        ]
        return fitting(expected, state)

    # ---------------------------------------------------------------- JSON

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        if self.fine is not None:
            return {"coarse": self.fine.to_json()}
        return {
            "nodes": [_plain(r) for r in self.nodes],
            "blocks": [_plain(b) for b in self.blocks],
            "dtypes": dict(self.dtypes),
            "shapes": {k: list(v) for k, v in self.shapes.items()},
            "extras": list(self.extras),
            "groups": list(self.groups),
        }

    @classmethod
    def from_json(
        cls,
        data: Any,
        place: str = "the graph template",
        *,
        error: type[MetanetError] = MetanetError,
    ) -> "GraphTemplate":
        """The template that :meth:`to_json` describes, checked: nodes, edges and shapes fit each
        other.

        Args:
            data: parsed JSON.
            place: how messages name where it comes from.
            error: the class of what is raised.

        Raises:
            MetanetError: it is of another form, or its parts contradict each other.
        """
        if isinstance(data, Mapping) and "coarse" in data:
            return cls._of_file(
                validated(CoarseFile, data, place, error=error).coarse, place, error
            ).coarse()
        return cls._of_file(validated(TemplateFile, data, place, error=error), place, error)

    @classmethod
    def _of_file(cls, file: TemplateFile, place: str, error: type[MetanetError]) -> "GraphTemplate":
        shapes = {name: tuple(shape) for name, shape in file.shapes.items()}
        nodes, blocks = tuple(map(node_range_of, file.nodes)), tuple(map(block_of, file.blocks))
        template = cls(nodes, blocks, file.dtypes, shapes, tuple(file.extras), tuple(file.groups))
        check_template(template, place, error)
        return template


def _plain(part: NodeRange | Block) -> dict[str, Any]:
    """Its fields, of which JSON has no tuples."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(part).items()
    }
