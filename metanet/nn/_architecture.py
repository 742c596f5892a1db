"""What every model is told of an architecture besides its weights: one short vector, the same for
all of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..graph import ACTIVATIONS, EdgeType, GraphTemplate, NodeType
from ._tables import CONSTANT_TYPES, CONVOLUTION_TYPES, LINEAR_TYPES, Rows, site_rows, tensor_rows

_RUNNING = (int(EdgeType.MEAN), int(EdgeType.VARIANCE))
_SCALARS = (
    "depth", "parameters", "width_mean", "width_min", "width_max", "inputs", "outputs",
    "convolutions", "linears", "norms", "residuals",
)  # fmt: skip

ARCHITECTURE_FEATURES: tuple[str, ...] = (*(f"activation_{a}" for a in ACTIVATIONS), *_SCALARS)
"""Names of the entries of :func:`architecture_features`."""


def architecture_features(template: GraphTemplate) -> Float[Tensor, " features"]:
    """Activations, depth, sizes and kinds of layers, scaled to about one.

    Activations are shares of the activated sites.

    Sizes are logarithms to base 2 over 10, layer counts are over 10: a layer is a site that edges
    of the kind reach, in however many pieces its tensor lies. Names: :data:`ARCHITECTURE_FEATURES`.
    """
    return architecture_of(template, site_rows(template), tensor_rows(template)).float()


def architecture_of(
    template: GraphTemplate, sites: Rows, tensors: Rows
) -> Float[Tensor, " features"]:
    """The features of one graph, in float64, from its tables."""
    of_sites, of_tensors = torch.zeros_like(sites["kind"]), torch.zeros_like(tensors["kind"])
    reached = torch.tensor([b.destination for b in template.blocks], dtype=torch.long)
    return architecture_rows(sites, of_sites, tensors, of_tensors, reached, 1)[0]


def architecture_rows(
    sites: Rows,
    site_graph: Int[Tensor, " sites"],
    tensors: Rows,
    tensor_graph: Int[Tensor, " tensors"],
    tensor_site: Int[Tensor, " tensors"],
    graphs: int,
) -> Float[Tensor, "graphs features"]:
    """The features of many graphs, from the tables of their sites and tensors.

    Args:
        site_graph, tensor_graph: the graph of every site and tensor.
        tensor_site: the site that every tensor's edges reach.
    """

    def total(x: Tensor, of: Tensor) -> Tensor:
        return torch.zeros(graphs, dtype=torch.float64, device=x.device).index_add_(
            0, of, x.double()
        )

    def extreme(x: Tensor, of: Tensor, how: str) -> Tensor:
        start = torch.zeros(graphs, dtype=torch.float64, device=x.device)
        return start.scatter_reduce_(0, of, x.double(), how, include_self=False)

    def amount(*types: int) -> Tensor:
        reached = torch.zeros_like(site)
        is_of_types = torch.stack([kind == t for t in types]).any(0)
        reached[tensor_site[is_of_types]] = 1
        return total(reached, site_graph)

    kind, site = tensors["kind"], sites["kind"]
    active = (sites["activation"] > 0) & (
        (site <= int(NodeType.SUM)) | (site == int(NodeType.PRODUCT))
    )
    one_hot = torch.stack(
        [total(active & (sites["activation"] == i), site_graph) for i in range(len(ACTIVATIONS))], 1
    )
    shares = one_hot / total(active, site_graph).clamp_min(1)[:, None]

    hidden = (site == int(NodeType.HIDDEN)) | (site == int(NodeType.SUM))
    width, of = sites["width"][hidden].double().log2(), site_graph[hidden]
    learned = torch.ones_like(kind, dtype=torch.bool)
    for t in (*CONSTANT_TYPES, *_RUNNING):
        learned &= kind != t
    depth = extreme(sites["depth"], site_graph, "amax")
    scalars = [
        depth,
        total(tensors["count"] * learned, tensor_graph).clamp_min(1).log2(),
        total(width, of) / total(torch.ones_like(of), of).clamp_min(1),
        extreme(width, of, "amin"),
        extreme(width, of, "amax"),
        total(sites["width"] * (site == int(NodeType.INPUT)), site_graph).clamp_min(1).log2(),
        total(sites["width"] * (site == int(NodeType.OUTPUT)), site_graph).clamp_min(1).log2(),
        amount(*CONVOLUTION_TYPES),
        amount(*LINEAR_TYPES),
        amount(EdgeType.SCALE),
        amount(EdgeType.RESIDUAL),
    ]
    return torch.cat([shares, torch.stack(scalars, 1) / 10], 1)
