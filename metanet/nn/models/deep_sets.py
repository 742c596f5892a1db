"""Deep Sets: parameters as a set."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import MetanetError
from ...graph import GraphStack
from .._architecture import ARCHITECTURE_FEATURES
from .._embedding import EdgeEmbedding
from .._metanet import Graphs, NeuralMetanet
from .._registry import register
from .._values import ValueFeatures

_POOLS = ("mean", "sum")


@register("deep_sets")
class DeepSets(NeuralMetanet):
    r"""Deep Sets over parameters: a baseline that knows what each is, not where.

    After `Zaheer et al., Deep Sets, NeurIPS 2017 <https://arxiv.org/abs/1703.06114>`_, as in `Lim
    et al. 2024 <https://arxiv.org/abs/2312.04501>`_.

    .. math::
        \rho\big(\mathrm{pool}_e\, \phi(v_e, \mathrm{type}_e, \mathrm{layer}_e, \mathrm{kernel\
        position}_e)\big)

    Every parameter knows what it is, but not which neurons it connects: the output stays the same
    under far more relabellings than the network's function does.

    Args:
        width: of the hidden layers.
        layers: of the MLP of every parameter.
        out_dim: of the output.
        dropout: in the head.
        pool: ``"mean"`` or ``"sum"`` (in units of a thousand parameters) over a network's
            parameters.
        architecture: whether the head is told the architecture features.

    Shapes:
        - **graphs** stacks, or a torch-geometric batch -> ``(graphs, out_dim)``
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 3,
        out_dim: int = 1,
        dropout: float = 0.1,
        pool: str = "mean",
        architecture: bool = True,
    ) -> None:
        super().__init__()
        if pool not in _POOLS:
            raise MetanetError(f"pool={pool!r}: choose {' or '.join(_POOLS)}")
        self.pool, self.architecture = pool, architecture
        self.values, self.embedding = ValueFeatures(), EdgeEmbedding(width)
        self.read_values = nn.Linear(ValueFeatures.size, width, bias=False)
        self.edge = nn.Sequential(
            *(m for _ in range(layers - 1) for m in (nn.Linear(width, width), nn.ReLU()))
        )
        features = len(ARCHITECTURE_FEATURES) if architecture else 0
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Linear(width + features, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, out_dim),
        )

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes centre and scale of each kind of edge from training graphs."""
        self.values.fit(stacks)

    def forward(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        """One answer for each graph: ``(graphs, out_dim)``."""
        layout = self.layout(graphs)
        h = (
            self.read_values(self.values(layout)) + layout.per_edge(self.embedding(layout.edges))
        ).relu()
        total = layout.edge_sum(self.edge(h))
        if self.pool == "mean":
            count = layout.per_tensor(layout.tensors["count"].to(total)[:, None])
            pooled = total / layout.pool(count, layout.tensor_graph)
        else:
            pooled = total / 1000
        pooled = self.norm(pooled)
        if self.architecture:
            pooled = torch.cat([pooled, layout.architecture], 1)
        return self.head(pooled)
