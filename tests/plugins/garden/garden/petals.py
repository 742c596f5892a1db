"""A metanetwork: statistics of every tensor, each read by the same small network, then averaged."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from metanet.graph import GraphStack
from metanet.nn import Graphs, NeuralMetanet, register

STATISTICS = 7  # mean, variance and five quantiles


@register("petals")
class Petals(NeuralMetanet):
    """An MLP on the statistics of each tensor, and the mean over tensors.

    Invariant: statistics do not change when neurons are relabelled.

    Args:
        width: of the hidden layers.
        out_dim: of the output; the task tells it.

    Shapes:
        - **graphs** stacks, or a torch-geometric batch -> ``(graphs, out_dim)``
    """

    def __init__(self, width: int = 16, out_dim: int = 1) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(STATISTICS, width), nn.ReLU())
        self.head = nn.Linear(width, out_dim)
        self.register_buffer("mean", torch.zeros(STATISTICS))
        self.register_buffer("std", torch.ones(STATISTICS))

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        statistics = self.layout(list(stacks)).statistics()
        self.mean = statistics.mean(0)
        self.std = statistics.std(0).clamp_min(1e-6)

    def forward(self, graphs: Graphs) -> Tensor:
        layout = self.layout(graphs)
        tokens = self.read((layout.statistics() - self.mean) / self.std)
        total = layout.pool(tokens, layout.tensor_graph)
        count = layout.pool(torch.ones_like(tokens[:, :1]), layout.tensor_graph)
        return self.head(total / count)
