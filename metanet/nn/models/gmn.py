"""Graph Metanetworks."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import MetanetError
from ...graph import GraphStack
from .._embedding import EdgeEmbedding, NodeEmbedding
from .._layout import Layout
from .._metanet import Graphs, NeuralMetanet
from .._readout import Readout
from .._registry import register
from .._values import ValueFeatures, signed_log


class EdgeLayer(nn.Module):
    r"""Message passing that updates parameters (edges), then neurons (nodes).

    .. math::
        h_{sd} &= \mathrm{relu}(W_e e_{sd} + W_s x_s + W_d x_d + b), \qquad e'_{sd} = e_{sd} + W_o
        h_{sd} \\ x'_i &= x_i + \mathrm{MLP}\big[x_i,\; \overline{e'}_{\to i},\; \overline{e'}_{i
        \to},\;
                \textstyle\sum_s v_{si} U x_s,\; \sum_d v_{id} U x_d\big]

    where the means run over each tensor and are summed over tensors, and the last two terms send
    features through the network's own weights ``v``, forwards and backwards. The first map of the
    edge MLP is split into the parts of edge, source and destination, so only ``W_e e`` is computed
    per edge; and since :math:`e'` is linear in ``h``, its means follow from those of ``h``.

    Args:
        width: of nodes and edges.
        signals: whether features travel through the weights.
        dropout: in the node MLP.

    Shapes:
        - **x** ``(nodes, width)``, **e** ``(edges, width)``
        - **means** of ``e``: by destination, by source ``(nodes, width)`` and by tensor ``(tensors,
          width)``
    """

    def __init__(self, width: int, signals: bool, dropout: float) -> None:
        super().__init__()
        self.edge, self.out = (
            nn.Linear(width, width, bias=False),
            nn.Linear(width, width, bias=False),
        )
        self.ends = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)
        self.node = NodeUpdate(width, signals, dropout)

    def forward(
        self,
        layout: Layout,
        x: Tensor,
        e: Tensor,
        means: tuple[Tensor, ...],
        signals: Any,
        last: bool,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """Nodes, edges and means after one round of message passing; the last has no new edges."""
        source, destination = self.ends(self.norm(x)).chunk(2, 1)
        w_o = self.out.weight.t()
        e_new, *h = layout.update_edges(
            e,
            self.edge.weight.t(),
            source.contiguous(),
            destination.contiguous(),
            None,
            None if last else w_o,
        )
        means = tuple(m + h_mean @ w_o for m, h_mean in zip(means, h, strict=True))
        return self.node(layout, x, means, signals), e_new, means


class NodeUpdate(nn.Module):
    """The update of the neurons: a residual MLP of what they hear from their edges, and of
    signals."""

    def __init__(self, width: int, signals: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.signal = nn.Linear(width, 2 * (width // 2), bias=False) if signals else None
        heard = 3 * width + (4 * (width // 2) if signals else 0)
        self.mlp = nn.Sequential(
            nn.LayerNorm(heard),
            nn.Linear(heard, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, layout: Layout, x: Tensor, means: tuple[Tensor, ...], signals: Any) -> Tensor:
        """``x`` and what an MLP makes of it, of the means of its edges, and of the signals."""
        heard = [x, means[0], means[1]]
        if self.signal is not None:
            heard += [signed_log(m) for m in layout.propagate(signals, self.signal(self.norm(x)))]
        return x + self.mlp(torch.cat(heard, 1))


@register("gmn")
class GMN(NeuralMetanet):
    r"""Graph metanetwork: message passing on parameter graphs, with an invariant head.

    After `Lim et al., Graph Metanetworks for Processing Diverse Neural Architectures, ICLR 2024
    <https://arxiv.org/abs/2312.04501>`_; edges (weights) are updated before nodes (neurons).

    Relabelling hidden neurons does not change the output. Dense stacks and sparse batches give the
    same numbers.

    Args:
        width: of nodes, edges and tokens.
        layers: of message passing, after a first one that reads the values.
        out_dim: of the output.
        dropout: in node updates, tokens and head.
        statistics: whether the readout knows mean, variance and quantiles of every tensor (exact,
            hence invariant).
        signals: whether node features also travel through the weights themselves.
        architecture: whether the head is told the architecture features.
        probes: width of optional inputs of the nodes, e.g. the neurons' activations at so many
            probe inputs.
        max_io: input and output neurons from this position on share embeddings with earlier ones.

    Shapes:
        - **graphs** stacks, or a torch-geometric batch -> ``(graphs, out_dim)``
        - **node_inputs** for each stack ``{number of the node range: (graphs, nodes, probes)}``;
          for a sparse batch a pair ``(nodes, probes)``, ``(nodes,)``, the mask of the nodes that
          have inputs
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 3,
        out_dim: int = 1,
        dropout: float = 0.1,
        statistics: bool = True,
        signals: bool = True,
        architecture: bool = True,
        probes: int = 0,
        max_io: int = 256,
    ) -> None:
        super().__init__()
        self.values = ValueFeatures()
        self.node_embedding, self.edge_embedding = (
            NodeEmbedding(width, max_io),
            EdgeEmbedding(width),
        )
        self.probes = ProbeEmbedding(probes, width) if probes else None
        self.ends = nn.Linear(width, 2 * width, bias=False)
        self.read_values = nn.Linear(ValueFeatures.size, width, bias=False)
        self.first = NodeUpdate(width, signals, dropout)
        self.layers = nn.ModuleList(EdgeLayer(width, signals, dropout) for _ in range(layers))
        self.readout = Readout(width, out_dim, dropout, statistics, architecture)
        self.with_signals = signals

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes centre and scale of each kind of edge from training graphs."""
        self.values.fit(stacks)

    def forward(self, graphs: Graphs, node_inputs: Any = None) -> Float[Tensor, "graphs out"]:
        """One answer for each graph: ``(graphs, out_dim)``.

        Raises:
            MetanetError: inputs of nodes are given to a model without ``probes``.
        """
        layout = self.layout(graphs)
        x = layout.per_node(self.node_embedding(layout.nodes))
        if self.probes is not None:
            x = x + self.probes(layout, node_inputs)
        elif node_inputs is not None:
            raise MetanetError("this model was built with probes=0 and reads no node_inputs")
        signals = layout.signals(self.values.bounded(layout)) if self.with_signals else None
        source, destination = self.ends(x).chunk(2, 1)
        # the first layer reads the values: its h is the edges' first embedding
        e, means = self._first_edges(layout, source.contiguous(), destination.contiguous())
        x = self.first(layout, x, means, signals)
        for number, layer in enumerate(self.layers):
            x, e, means = layer(layout, x, e, means, signals, last=number == len(self.layers) - 1)
        return self.readout(layout, x, means[2], self.values)

    def _first_edges(
        self, layout: Layout, source: Tensor, destination: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        static = self.edge_embedding(layout.edges)
        views = self.values(layout)
        h, *means = layout.update_edges(
            views, self.read_values.weight.t(), source, destination, static, keep=True
        )
        assert h is not None  # by keep=True
        return h, tuple(means)


class ProbeEmbedding(nn.Module):
    """Inputs given for some of the nodes; the others get a learned constant."""

    def __init__(self, probes: int, width: int) -> None:
        super().__init__()
        self.width = probes
        self.linear, self.norm = nn.Linear(probes, width), nn.LayerNorm(width)
        self.absent = nn.Parameter(torch.zeros(width))

    def extra_repr(self) -> str:
        """Its setting."""
        return f"probes={self.width}"

    def forward(self, layout: Layout, given: Any) -> Tensor:
        """``(nodes, width)``, or ``(width,)`` where no node has inputs."""
        inputs = layout.node_inputs(given, self.width)
        if inputs is None:
            return self.absent
        values, mask = inputs
        return torch.where(mask > 0, self.norm(self.linear(values)), self.absent)
