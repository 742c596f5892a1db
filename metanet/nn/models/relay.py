"""A metanetwork that computes in the order in which data flows through the networks it reads."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import MetanetError
from ...graph import GraphStack
from .._embedding import EdgeEmbedding, NodeEmbedding
from .._layered import Layered
from .._metanet import Graphs, NeuralMetanet
from .._registry import register
from .._role_readout import RoleReadout
from .._roles import RoleNormalisation

_FURTHEST = 8.0  # units: values further from their centre count as so far
_VIEWS = 3


def views_of(z: Float[Tensor, "*edges"], count: int) -> Float[Tensor, "*edges views"]:
    """Views of normalised values: themselves, bounded; their size; small ones enlarged.

    >>> views_of(torch.tensor([0.0, -2.0, 99.0]), 1)[:, 0].tolist()
    [0.0, -2.0, 8.0]
    """
    views = [
        z.clamp(-_FURTHEST, _FURTHEST),
        z.abs().log1p(),
        torch.tanh(2 * z),
    ]
    return torch.stack(views[:count], -1)


class Sources(Sequence[Tensor]):
    """What the nodes of every layer send, made when it is asked for and kept until they change."""

    def __init__(self, x: Sequence[Tensor], made: Callable[[Tensor], Tensor]) -> None:
        self._x, self._made = x, made
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._x)

    @overload
    def __getitem__(self, layer: int) -> Tensor: ...
    @overload
    def __getitem__(self, layer: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, layer: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(layer, slice):
            return [self[number] for number in range(*layer.indices(len(self)))]
        if not 0 <= layer < len(self):
            raise IndexError(layer)
        if layer not in self._kept:
            self._kept[layer] = self._made(self._x[layer])
        return self._kept[layer]

    def forget(self, layer: int) -> None:
        """The nodes of a layer have changed."""
        self._kept.pop(layer, None)


class Pass(nn.Module):
    r"""One way through the network, layer by layer, forwards or backwards.

    .. math::
        x_d \leftarrow x_d + \mathrm{MLP}\Big[x_d,\; \sum_{\mathrm{blocks}} \frac 1 {\sqrt n} \sum_s
        g \odot \sum_k \phi_k(w_{sd})\, S_k x_s\Big]

    Args:
        width: of nodes.
        views: of each value.
        rounds: how often a layer that hears itself is updated.
        backward: from the outputs to the inputs.
    """

    def __init__(self, width: int, views: int, rounds: int, backward: bool) -> None:
        super().__init__()
        self.rounds, self.backward = rounds, backward
        self.source = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, views * width))
        self.gain = nn.Linear(width, width)
        self.update = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(
        self, layered: Layered, x: list[Tensor], weights: Any, kinds: Float[Tensor, "rows width"]
    ) -> list[Tensor]:
        """The nodes after the pass.

        Args:
            x: nodes of every layer.
            weights: of ``layered.weights``.
            kinds: an embedding of each row of the table of edges.
        """
        x = list(x)
        gains = 1 + self.gain(kinds)
        sources = Sources(x, self.source)
        listen = layered.outward if self.backward else layered.inward
        onwards = range(1, layered.depth)  # nothing reaches layer 0
        for layer in reversed(onwards) if self.backward else onwards:
            for mask in self._turns(layered, layer):
                heard = listen(layer, sources, weights, gains)
                change = self.update(torch.cat([x[layer], heard], 1))
                x[layer] = x[layer] + (change if mask is None else mask * change)
                sources.forget(layer)
        return x

    def _turns(self, layered: Layered, layer: int) -> list[Tensor | None]:
        """Which nodes of a layer are updated, turn by turn; ``None``: all of them."""
        if self.backward:
            sends = layered.sends[layer]
            return [sends] if sends.any() else []
        loops = layered.loops[layer]
        again = self.rounds - 1 if loops.any() else 0
        return ([None] if len(loops) else []) + [loops] * again


@register("relay")
class Relay(NeuralMetanet):
    r"""Message passing in the order of the data: a neuron is read after those that it reads.

    One pass runs through all layers of a network, however deep it is, so that what a neuron hears
    already knows everything before it: the depth of the network read costs time, not layers. The
    weights *scale* what neurons say to each other, as they scale activations in the network itself;
    values are normalised tensor by tensor (:class:`~metanet.nn._roles.RoleNormalisation`); and all
    sites are read, not the output alone. Edges have no state, so no array of edges times width is
    made: a block costs one product of its values with its sources (:mod:`metanet.nn._layered`).

    Residual sums, attention and gates are passed as data passes them; recurrent cells and ties are
    read in ``rounds``, and by the next pass.

    Relabelling hidden neurons does not change the output. Dense stacks and sparse batches give the
    same numbers.

    Own design: the messages of a pass are the linear maps of the network itself, on features in place
    of activations. Probes (:class:`ProbedGMN`) push inputs through the network; a pass pushes what a
    learned map makes of them.

    Args:
        width: of nodes.
        passes: through the networks, from the inputs to the outputs.
        backward: whether there is a pass back between two of them, as in training. At equal time it
            gains nothing on SIRENs.
        views: of each value: 1, itself; 2, also its size; 3, also small ones enlarged.
        rounds: how often layers that hear themselves are updated in a pass.
        out_dim: of the output.
        dropout: in the head.
        statistics: whether the readout knows mean, variance and quantiles of every tensor.
        architecture: whether the head is told the architecture features.
        max_io: input and output neurons from this position on share embeddings with earlier ones.

    Shapes:
        - **graphs** stacks, or a torch-geometric batch -> ``(graphs, out_dim)``

    Raises:
        MetanetError: a number is out of range.
    """

    def __init__(
        self,
        width: int = 64,
        passes: int = 2,
        backward: bool = False,
        views: int = 3,
        rounds: int = 2,
        out_dim: int = 1,
        dropout: float = 0.1,
        statistics: bool = True,
        architecture: bool = True,
        max_io: int = 256,
    ) -> None:
        super().__init__()
        _check(width=width, passes=passes, rounds=rounds, views=views)
        if views > _VIEWS:
            raise MetanetError(f"model.views is {views}; choose 1 to {_VIEWS}")
        self.view_count = views
        self.values = RoleNormalisation()
        self.nodes, self.edges = NodeEmbedding(width, max_io), EdgeEmbedding(width)
        self.kinds = nn.LayerNorm(width)
        directions = [False] + [True, False] * (passes - 1) if backward else [False] * passes
        self.passes = nn.ModuleList(
            Pass(width, views, rounds, direction) for direction in directions
        )
        self.readout = RoleReadout(width, out_dim, dropout, statistics, architecture)

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        self.values.fit(stacks)

    def forward(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        layout = self.layout(graphs)
        layered = layout.layered()
        x = layered.by_layer(self.nodes(layout.nodes))
        centre, scale = self.values.units(layout.edges)
        weights = layered.weights(centre, scale, self._views)
        kinds = self.kinds(self.edges(layout.edges))
        for each in self.passes:
            x = each(layered, x, weights, kinds)
        mean, square = layered.moments(x)
        return self.readout(layout, mean, square, self.values)

    def _views(self, z: Tensor) -> Tensor:
        return views_of(z, self.view_count)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise MetanetError(f"model.{name} is {count}; it must be at least 1")
