"""From nodes and edges to one vector per graph."""

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..graph import NodeType
from ._architecture import ARCHITECTURE_FEATURES
from ._embedding import site_embedding, softmax_by_graph, tensor_embedding
from ._layout import Layout
from ._statistics import STATISTICS
from ._tables import Rows
from ._values import ValueFeatures, signed_log

_HEADS = 4


class Units(Protocol):
    """Knows the centre and the scale of values."""

    def units(self, table: Rows) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Of those that each row of a table of edges or tensors is about."""


class StatisticsFeatures(nn.Module):
    """The seven statistics of every tensor, on a scale on which small and huge values both fit.

    Shapes:
        - **returns** ``(tensors, 14)``
    """

    size = 2 * len(STATISTICS)

    def forward(self, layout: Layout, values: Units) -> Float[Tensor, "tensors 14"]:
        """The statistics in the units of their values, by ``signed_log``."""
        columns = values.units(layout.tensors)
        centre, scale = (layout.per_tensor(column[:, None]) for column in columns)
        mean, variance, quantiles = layout.statistics().split([1, 1, 5], 1)
        varies = variance > 0  # the square root has no gradient at 0, where all entries are equal
        deviation = torch.where(varies, variance, 1).sqrt() * varies
        z = torch.cat([(mean - centre) / scale, deviation / scale, (quantiles - centre) / scale], 1)
        return torch.cat([signed_log(z), signed_log(8 * z) / 2], 1)


class Readout(nn.Module):
    """Tokens of every tensor and every site, pooled by mean and by attention; then the head.

    A tensor's token is made of the mean of its edges' features (and its statistics), a site's of
    the mean and the spread of its neurons'; each knows its type and its layer from both ends. The
    head also sees the mean of the output neurons and the architecture features.

    Args:
        width: of nodes, edges and tokens.
        out_dim: of the output.
        dropout: on tokens and in the head.
        statistics: whether tensors' tokens know the seven statistics of StatNN.
        architecture: whether the head sees the architecture features.
    """

    def __init__(
        self, width: int, out_dim: int, dropout: float, statistics: bool, architecture: bool
    ) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_before_loading)
        self.statistics = StatisticsFeatures() if statistics else None
        extra = StatisticsFeatures.size if statistics else 0
        self.tensor_in, self.site_in = nn.Linear(width + extra, width), nn.Linear(2 * width, width)
        self.tensor_table, self.site_table = tensor_embedding(width), site_embedding(width)
        self.token = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(2 * width, width), nn.GELU(),
        )  # fmt: skip
        self.attention = nn.Linear(width, _HEADS)
        self.architecture = architecture
        features = len(ARCHITECTURE_FEATURES) if architecture else 0
        self.pooled = nn.Sequential(nn.LayerNorm((2 + _HEADS) * width), nn.Dropout(dropout))
        self.head = nn.Sequential(
            nn.Linear((2 + _HEADS) * width + features, 2 * width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(2 * width, out_dim),
        )  # fmt: skip

    def extra_repr(self) -> str:
        """What it reads beside the features of nodes and edges."""
        return f"statistics={self.statistics is not None}, architecture={self.architecture}"

    def forward(
        self,
        layout: Layout,
        x: Float[Tensor, "nodes width"],
        tensors: Float[Tensor, "tensors width"],
        values: ValueFeatures,
    ) -> Float[Tensor, "graphs out"]:
        """One output for each graph.

        Args:
            layout: the graphs.
            x: features of the nodes.
            tensors: means of the edges' features over every tensor.
            values: the normalisation, for the statistics.
        """
        if self.statistics is not None:
            tensors = torch.cat([tensors, self.statistics(layout, values)], 1)
        mean = layout.site_mean(x)
        # the spread is that of a batch of neurons, not an estimate: a site of one neuron has none
        spread = (layout.site_mean(x * x) - mean * mean).clamp_min(0).add(1e-6).sqrt()
        tokens = torch.cat(
            [
                self.tensor_in(tensors) + layout.per_tensor(self.tensor_table(layout.tensors)),
                self.site_in(torch.cat([mean, spread], 1))
                + layout.per_site(self.site_table(layout.sites)),
            ]
        )
        graph = torch.cat([layout.tensor_graph, layout.site_graph])
        tokens = self.token(tokens)
        weights = softmax_by_graph(self.attention(tokens), graph, layout.graphs)
        attended = (weights[:, :, None] * tokens[:, None]).flatten(1)
        share = 1 / torch.bincount(graph, minlength=layout.graphs).to(tokens)[graph]
        pooled = layout.pool(torch.cat([tokens * share[:, None], attended], 1), graph)
        pooled = self.pooled(torch.cat([pooled, self._outputs(layout, mean)], 1))
        if self.architecture:
            pooled = torch.cat([pooled, layout.architecture], 1)
        return self.head(pooled)

    @staticmethod
    def rename_former(state: dict[str, Tensor], prefix: str) -> None:
        """Give tensors of a model that was saved before 0.2 the names that they have now, in place.

        ::

            head.0 (the norm of what was pooled)  ->  pooled.0
            out.0, out.3 (the head)               ->  head.0, head.3

        Args:
            state: tensors by name, of a whole model.
            prefix: of the readout in it, such as ``"readout."``.
        """
        if not any(name.startswith(f"{prefix}out.") for name in state):
            return
        for former, current in (("head.", "pooled."), ("out.", "head.")):
            names = [name for name in state if name.startswith(prefix + former)]
            for name in names:
                state[prefix + current + name.removeprefix(prefix + former)] = state.pop(name)

    def _outputs(self, layout: Layout, site_mean: Tensor) -> Tensor:
        """Mean over the output neurons."""
        is_output = layout.sites["kind"] == int(NodeType.OUTPUT)
        weight = layout.per_site((layout.sites["width"] * is_output).to(site_mean)[:, None])
        total = layout.pool(torch.cat([weight * site_mean, weight], 1), layout.site_graph)
        return total[:, :-1] / total[:, -1:].clamp_min(1)


def _before_loading(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    Readout.rename_former(state, prefix)
