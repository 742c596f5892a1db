"""A graph out of what a file holds: every attribute is of the shape and within the numbers that its
template allows."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MetanetError, brief
from ._graph import ParameterGraph
from ._memory import refuse_too_large
from .template._schema import ACTIVATIONS, EDGE_KEYS, NODE_KEYS, EdgeType, NodeType
from .template._template import GraphTemplate

# Numbers below these stand for something.
_KINDS = {"node_type": len(NodeType), "edge_type": len(EdgeType), "activation": len(ACTIVATIONS)}


def refuse_unexpandable(template: GraphTemplate, path: Path) -> None:
    """Refuse a template whose graph would not fit into memory, or has nodes without an edge, before
    it is made.

    Raises:
        MetanetError: with the numbers.
    """
    if template.num_nodes > 2 * template.num_edges:
        raise MetanetError(
            f"'{path}' is damaged: its template has {template.num_nodes:,} nodes, "
            f"which {template.num_edges:,} edges "
            "do not reach"
        )
    refuse_too_large(template)


def graph_of(attributes: Mapping[str, Any], template: GraphTemplate, path: Path) -> ParameterGraph:
    """The graph that has these attributes.

    Args:
        attributes: by name, as a file holds them.
        template: of its architecture, checked.
        path: of the file, for messages.

    Raises:
        MetanetError: lists the attributes that a graph of this template can't have.
    """
    problems = [*islice(_problems(attributes, template), 6)]
    if problems:
        shown = "\n  ".join(problems)
        raise MetanetError(f"'{path}' is damaged, or no graph that metanet saved:\n  {shown}")
    graph = ParameterGraph()
    for name, value in attributes.items():
        setattr(graph, name, value)
    graph.validate()
    return graph


def _problems(attributes: Mapping[str, Any], template: GraphTemplate) -> Any:
    nodes, edges = template.num_nodes, template.num_edges
    shapes: dict[str, tuple[int, ...]] = {}
    shapes.update(dict.fromkeys(NODE_KEYS, (nodes,)))
    shapes.update(dict.fromkeys(EDGE_KEYS, (edges,)))
    shapes |= {"edge_index": (2, edges), "kernel_pos": (edges, 3), "depth": (1,)}
    for name, shape in shapes.items():
        value = attributes.get(name)
        if (
            not isinstance(value, Tensor)
            or tuple(value.shape) != shape
            or value.dtype is not torch.int64
        ):
            yield f"{name} is {_described(value)}, expected {shape} of torch.int64"
        elif value.numel() and (
            int(value.min()) < -1 or int(value.max()) >= _KINDS.get(name, 2**62)
        ):
            yield f"{name} has numbers that stand for nothing"
    values = attributes.get("edge_attr")
    if (
        not isinstance(values, Tensor)
        or values.ndim != 2
        or len(values) != edges
        or not values.is_floating_point()
    ):
        yield f"edge_attr is {_described(values)}, expected ({edges}, 1) of a floating-point dtype"
    if attributes.get("num_nodes") != nodes or isinstance(attributes["num_nodes"], Tensor):
        yield f"num_nodes is {brief(attributes.get('num_nodes'))}, expected {nodes}"
    for name, what in (("extras", Tensor), ("dtypes", str)):
        if not _is_one_dict(attributes.get(name), what):
            yield f"{name} is no list of one dict from names to {what.__name__}"
    for name in attributes:
        if not _can_be_set(name):
            yield f"a graph can't have an attribute {brief(name)!r}"


def _described(value: Any) -> str:
    return (
        f"{tuple(value.shape)} of {value.dtype}"
        if isinstance(value, Tensor)
        else type(value).__name__
    )


def _is_one_dict(value: Any, what: type) -> bool:
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        return False
    known = all(isinstance(name, str) and isinstance(each, what) for name, each in value[0].items())
    return known and (
        what is not str
        or all(isinstance(getattr(torch, n, None), torch.dtype) for n in value[0].values())
    )


def _can_be_set(name: Any) -> bool:
    """Attributes are kept as attributes of an object, so what that object has under a name is in
    the way."""
    if not isinstance(name, str) or name.startswith("_"):
        return False
    own = getattr(ParameterGraph, name, None)
    return own is None or getattr(own, "fset", None) is not None
