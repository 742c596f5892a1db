"""One checkpoint as a torch-geometric graph."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ..errors import CheckpointError, MetanetError
from ._template import GraphStack, GraphTemplate


class ParameterGraph(Data):
    """A network's parameters as a graph: neurons are nodes, every entry of a parameter is an edge.

    Graph Metanetworks, `Lim et al., ICLR 2024 <https://arxiv.org/abs/2312.04501>`_. The attributes are listed in
    ``metanet/graph/_schema.py``. Two more belong to the checkpoint as a whole, as lists of one dict so that batches
    concatenate them: ``extras``, the tensors that travel unchanged (integer buffers), and ``dtypes``, the dtype of
    every tensor in the checkpoint.
    """

    def validate(self, raise_on_error: bool = True) -> bool:
        """Check that the attributes fit each other.

        Raises:
            MetanetError: naming the attribute and the numbers, if ``raise_on_error``.
        """
        problems = []
        nodes, edges = self.num_nodes, self.edge_attr.shape[0]
        if tuple(self.edge_index.shape) != (2, edges):
            problems.append(
                f"edge_index is {tuple(self.edge_index.shape)}, expected (2, {edges}) as edge_attr has {edges} rows"
            )
        elif edges and int(self.edge_index.max()) >= nodes:
            problems.append(f"edge_index names node {int(self.edge_index.max())}, but there are {nodes} nodes")
        for key in ("edge_type", "edge_layer", "edge_tensor", "kernel_pos", "fan_in", "fan_out"):
            if getattr(self, key).shape[0] != edges:
                problems.append(f"{key} has {getattr(self, key).shape[0]} rows, expected one per edge ({edges})")
        for key in ("node_type", "node_layer", "node_site", "node_width", "activation", "io_position"):
            if getattr(self, key).shape[0] != nodes:
                problems.append(f"{key} has {getattr(self, key).shape[0]} rows, expected one per node ({nodes})")
        if problems and raise_on_error:
            raise MetanetError("not a valid parameter graph:\n  " + "\n  ".join(problems))
        return not problems


def fill(template: GraphTemplate, state: Mapping[str, Tensor]) -> ParameterGraph | Batch:
    """The graph of one state dict, or the batch of many stacked ones (a leading axis on every tensor).

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    values = template.values(state)
    extras = {name: state[name] for name in template.extras if name in state}
    dtypes = {name: str(state[name].dtype).removeprefix("torch.") for name in template.shapes}
    if values.ndim == 2:
        return _graph(template, values, extras, dtypes)
    return unstack(GraphStack(template, values), extras, dtypes)


def unstack(
    stack: GraphStack, extras: Mapping[str, Tensor] | None = None, dtypes: Mapping[str, str] | None = None
) -> Batch:
    """A dense stack as one batch of sparse graphs."""
    split = [{k: v[i] for k, v in (extras or {}).items()} for i in range(len(stack))]
    graphs = [_graph(stack.template, v, e, dtypes or {}) for v, e in zip(stack.edge_attr, split, strict=True)]
    return Batch.from_data_list(graphs)


def _graph(
    template: GraphTemplate, values: Tensor, extras: Mapping[str, Tensor], dtypes: Mapping[str, str]
) -> ParameterGraph:
    static = {k: v.to(values.device) for k, v in template.static.items()}
    shared = {"num_nodes": template.num_nodes, "extras": [dict(extras)], "dtypes": [dict(dtypes)]}
    return ParameterGraph(edge_attr=values, **shared, **static)


def read(template: GraphTemplate, graph: Data) -> dict[str, Tensor]:
    """The state dict of a graph: the exact inverse of :func:`fill`, whatever the order of nodes was.

    Raises:
        CheckpointError: the graph does not have this architecture's number of edges.
    """
    if graph.edge_attr.shape[0] != template.num_edges:
        raise CheckpointError(f"the graph has {graph.edge_attr.shape[0]} edges, this architecture {template.num_edges}")
    (dtypes,) = getattr(graph, "dtypes", None) or [None]
    state = template.tensors(graph.edge_attr, dtypes)
    for extra in getattr(graph, "extras", None) or []:
        state.update(extra)
    return state


def permute_nodes(graph: ParameterGraph, order: Tensor) -> ParameterGraph:
    """The same graph with its nodes in another order: new node ``i`` is old node ``order[i]``."""
    out = graph.clone()
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    out.edge_index = inverse[graph.edge_index]
    for key in ("node_type", "node_layer", "node_site", "node_width", "activation", "io_position"):
        out[key] = graph[key][order]
    return out
