"""Parameter graphs: neurons are nodes, every entry of a parameter is an edge."""

import importlib
from typing import TYPE_CHECKING, Any

from ._memory import byte_size as byte_size
from ._memory import refuse_too_large as refuse_too_large
from .building._builder import TemplateBuilder as TemplateBuilder
from .template._bits import real_parts as real_parts
from .template._bits import same_bits as same_bits
from .template._blocks import Block as Block
from .template._blocks import NodeRange as NodeRange
from .template._blocks import row_major as row_major
from .template._relabel import node_order as node_order
from .template._schema import ACTIVATIONS as ACTIVATIONS
from .template._schema import ROLES as ROLES
from .template._schema import EdgeType as EdgeType
from .template._schema import NodeType as NodeType
from .template._schema import Role as Role
from .template._summary import SUMMARY as SUMMARY
from .template._template import GraphStack as GraphStack
from .template._template import GraphTemplate as GraphTemplate

if TYPE_CHECKING:
    from ._graph import ParameterGraph as ParameterGraph
    from ._graph import fill as fill
    from ._graph import permute_nodes as permute_nodes
    from ._graph import read as read
    from ._graph import unstack as unstack
    from ._saving import load_graph as load_graph
    from ._saving import save_graph as save_graph
    from .picture._compose import compose as compose
    from .picture._html import draw_html as draw_html
    from .picture._png import draw as draw

# torch_geometric and matplotlib take seconds to import, and training on dense stacks needs neither
_LAZY = {
    "ParameterGraph": "_graph",
    "fill": "_graph",
    "permute_nodes": "_graph",
    "read": "_graph",
    "unstack": "_graph",
    "compose": "picture._compose",
    "draw": "picture._png",
    "draw_html": "picture._html",
    "load_graph": "_saving",
    "save_graph": "_saving",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
