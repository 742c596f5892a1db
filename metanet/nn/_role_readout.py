"""From the means over sites and the statistics of tensors to one vector per graph, by their roles."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ._architecture import ARCHITECTURE_FEATURES
from ._embedding import site_embedding, tensor_embedding
from ._layout import Layout
from ._readout import StatisticsFeatures, Units

_SLOTS = 8


class RoleReadout(nn.Module):
    r"""Reads every site and every tensor, each by what it is.

    .. math::
        \mathrm{slot}_r = \frac{1}{\sqrt n} \sum_{\mathrm{sites}} c_r(\mathrm{kind}, \mathrm{layer},
        \mathrm{activation}, \ldots)\; [\text{mean and spread of its neurons}]

    and likewise for the statistics of tensors; an MLP reads all slots. With as many slots as sites
    this is an MLP on everything that there is to know of one architecture, site by site, which reads
    better than tokens that are pooled; and it says something of any other.

    Args:
        width: of nodes.
        out_dim: of the output.
        dropout: before each linear map.
        statistics: whether the statistics of tensors are read.
        architecture: whether the architecture features are read.
    """

    def __init__(
        self, width: int, out_dim: int, dropout: float, statistics: bool, architecture: bool
    ) -> None:
        super().__init__()
        self.statistics = StatisticsFeatures() if statistics else None
        self.architecture = architecture
        self.site_norm = nn.LayerNorm(2 * width)
        self.site_slots = site_embedding(_SLOTS)
        self.tensor_slots = tensor_embedding(_SLOTS) if statistics else None
        read = _SLOTS * (2 * width + (StatisticsFeatures.size if statistics else 0))
        read += len(ARCHITECTURE_FEATURES) if architecture else 0
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(read, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, out_dim),
        )

    def forward(
        self,
        layout: Layout,
        mean: Float[Tensor, "sites width"],
        square: Float[Tensor, "sites width"],
        values: Units,
    ) -> Float[Tensor, "graphs out"]:
        """The output, from means over sites of neurons' features and of their squares."""
        # the spread is that of a batch of neurons, not an estimate: a site of one neuron has none
        spread = (square - mean * mean).clamp_min(0).add(1e-6).sqrt()
        features = self.site_norm(torch.cat([mean, spread], 1))
        slots = layout.site_slots(self.site_slots(layout.sites), features)
        read = [slots * _shares(layout, layout.site_graph)]
        if self.statistics is not None and self.tensor_slots is not None:
            features = self.statistics(layout, values)
            slots = layout.tensor_slots(self.tensor_slots(layout.tensors), features)
            read.append(slots * _shares(layout, layout.tensor_graph))
        if self.architecture:
            read.append(layout.architecture)
        return self.head(torch.cat(read, 1))


def _shares(layout: Layout, graph: Int[Tensor, " tokens"]) -> Float[Tensor, "graphs 1"]:
    """One over the square root of how many tokens each graph has."""
    count = torch.bincount(graph, minlength=layout.graphs)
    return count.to(layout.values).rsqrt()[:, None]
