"""Embeddings of the integers of the graph schema."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ._tables import ACTIVATION_TYPES, EDGE_TYPES, LAYERS, NODE_TYPES, Rows

_TAPS = 16  # so do kernel positions


class TableEmbedding(nn.Module):
    """A sum of embeddings of integer columns and of a linear map of logarithms of sizes.

    Layers are counted from the input and from the output, so that networks of different depth share
    what is the same.

    Args:
        width: of the embedding.
        columns: how many values each integer column has.
        sizes: columns of positive integers of any magnitude.

    Shapes:
        - **table** columns of ``(rows,)`` -> ``(rows, width)``
    """

    def __init__(self, width: int, columns: dict[str, int], sizes: tuple[str, ...]) -> None:
        super().__init__()
        columns = columns | {"layer": LAYERS, "from_output": LAYERS}
        self.tables = nn.ModuleDict({name: _table(count, width) for name, count in columns.items()})
        self.columns, self.sizes = columns, sizes
        self.linear = nn.Linear(len(sizes), width)

    def extra_repr(self) -> str:
        """The columns that are embedded."""
        return f"columns={[*self.columns]}, sizes={[*self.sizes]}"

    def forward(self, table: Rows) -> Float[Tensor, "rows width"]:
        """One embedding for each row of a table: ``(rows, width)``."""
        sizes = torch.stack([table[s] for s in self.sizes], 1).to(self.linear.weight).log2() / 4
        out = self.linear(sizes)
        table = table | {"from_output": table["depth"] - table["layer"]}
        for name, embedding in self.tables.items():
            out = out + embedding(table[name].clamp(0, self.columns[name] - 1))
        return out


class NodeEmbedding(nn.Module):
    """What is known of a neuron before any weight is read; inputs and outputs are told apart by
    their position.

    Args:
        width: of the embedding.
        max_io: positions from this on share embeddings with earlier ones.
    """

    def __init__(self, width: int, max_io: int) -> None:
        super().__init__()
        self.table = site_embedding(width)
        self.inputs, self.outputs = _table(max_io, width), _table(max_io, width)
        self.max_io = max_io

    def extra_repr(self) -> str:
        """Its setting."""
        return f"max_io={self.max_io}"

    def forward(self, table: Rows) -> Float[Tensor, "rows width"]:
        """One embedding for each row of the table of nodes: ``(rows, width)``."""
        position = table["io_position"]
        at = position.clamp_min(0) % self.max_io
        is_input = (table["layer"] == 0)[:, None]
        io = torch.where(is_input, self.inputs(at), self.outputs(at))
        return self.table(table) + io * (position >= 0)[:, None]


class EdgeEmbedding(nn.Module):
    """What is known of a parameter besides its value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = TableEmbedding(width, {"kind": EDGE_TYPES}, ("fan_in", "fan_out"))
        self.taps = nn.ModuleList(_table(_TAPS + 1, width) for _ in range(3))

    def forward(self, table: Rows) -> Float[Tensor, "rows width"]:
        """One embedding for each row of the table of edges: ``(rows, width)``."""
        out = self.table(table)
        for axis, taps in enumerate(self.taps):
            out = out + taps(
                table["kernel_pos"][:, axis].clamp(-1, _TAPS - 1) + 1
            )  # entry 0: no such axis
        return out


def site_embedding(width: int) -> TableEmbedding:
    """For node ranges."""
    return TableEmbedding(width, {"kind": NODE_TYPES, "activation": ACTIVATION_TYPES}, ("width",))


def tensor_embedding(width: int) -> TableEmbedding:
    """For blocks."""
    return TableEmbedding(width, {"kind": EDGE_TYPES}, ("count", "fan_in", "fan_out"))


def _table(count: int, width: int) -> nn.Embedding:
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=0.3)
    return table


def softmax_by_graph(
    scores: Float[Tensor, "tokens heads"], graph: Int[Tensor, " tokens"], graphs: int
) -> Float[Tensor, "tokens heads"]:
    """Softmax over the tokens of every graph."""
    index = graph[:, None].expand_as(scores)
    top = scores.new_full((graphs, scores.shape[1]), -torch.inf).scatter_reduce(
        0, index, scores.detach(), "amax"
    )
    weights = (scores - top[graph]).exp()
    total = weights.new_zeros(graphs, weights.shape[1]).scatter_add(0, index, weights)
    return weights / total[graph]
