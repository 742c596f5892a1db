"""The flattened weights of one architecture into an MLP."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import MetanetError
from ...graph import GraphStack
from .._layout import Layout
from .._metanet import Graphs, NeuralMetanet
from .._registry import register
from .._tables import TENSOR_COLUMNS


@register("flat_mlp")
class FlatMLP(NeuralMetanet):
    """An MLP on the flattened weights: the baseline that knows no symmetry.

    It serves one architecture only, and its output changes when neurons are relabelled.

    ``fit_normalisation`` takes mean and standard deviation of every entry, and makes the first
    layer to measure.

    Args:
        width: of the hidden layers.
        layers: hidden layers.
        out_dim: of the output.
        dropout: after every hidden layer.
        entries, blocks: number of entries and of tensors of the architecture; filled in by
            ``fit_normalisation``.

    Shapes:
        - **graphs** stacks, or a torch-geometric batch, of the one architecture -> ``(graphs,
          out_dim)``
    """

    def __init__(
        self,
        width: int = 128,
        layers: int = 3,
        out_dim: int = 1,
        dropout: float = 0.1,
        entries: int | None = None,
        blocks: int | None = None,
    ) -> None:
        super().__init__()
        hidden = [
            m
            for _ in range(layers - 1)
            for m in (nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        ]
        self.first: nn.Module | None = None
        self.width = width
        self.rest = nn.Sequential(
            nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), *hidden, nn.Linear(width, out_dim)
        )
        if entries is not None and blocks is not None:
            self._make(entries, blocks)

    def _make(self, entries: int, blocks: int) -> None:
        like = next(self.parameters())
        self.arguments.update(entries=entries, blocks=blocks)
        self.first = nn.Linear(entries, self.width).to(like)
        self.register_buffer("mean", torch.zeros(entries).to(like))
        self.register_buffer("std", torch.ones(entries).to(like))
        self.register_buffer(
            "signature",
            torch.zeros(blocks, len(TENSOR_COLUMNS), dtype=torch.long, device=like.device),
        )

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes mean and spread of every entry, and the number of entries, from training graphs.

        Raises:
            MetanetError: the graphs are of several architectures.
        """
        values, signature = self._entries(self.layout(list(stacks)))
        if self.first is None:
            self._make(values.shape[1], signature.shape[0])
        self.mean, self.signature = values.mean(0), signature
        self.std = values.std(0, correction=0).clamp_min(1e-6)

    def forward(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        """One answer for each graph: ``(graphs, out_dim)``.

        Raises:
            MetanetError: the architecture is not known yet, or it is another one.
        """
        if self.first is None:
            raise MetanetError(
                "flat_mlp does not know its architecture yet: call fit_normalisation with training graphs"
            )
        values, signature = self._entries(self.layout(graphs))
        if not torch.equal(signature, self.signature):
            raise MetanetError(
                "flat_mlp was made for another architecture: "
                f"{self.mean.numel()} entries in {len(self.signature)} tensors, "
                f"these graphs have {values.shape[1]} in {len(signature)}"
            )
        return self.rest(self.first(((values - self.mean) / self.std).clamp(-10, 10)))

    def _entries(
        self, layout: Layout
    ) -> tuple[Float[Tensor, "graphs entries"], Int[Tensor, "tensors columns"]]:
        flat = layout.flat()
        if flat is None:
            raise MetanetError(_SEVERAL)
        return flat


_SEVERAL = (
    "flat_mlp reads the weights of one architecture only, and these graphs are of several. "
    "Use gmn, deep_sets or stat."
)
