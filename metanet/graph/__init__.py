"""Parameter graphs: neurons are nodes, every entry of a parameter is an edge."""

from typing import TYPE_CHECKING, Any

from ._builder import TemplateBuilder as TemplateBuilder
from ._schema import ACTIVATIONS as ACTIVATIONS
from ._schema import ROLES as ROLES
from ._schema import EdgeType as EdgeType
from ._schema import NodeType as NodeType
from ._template import Block as Block
from ._template import GraphStack as GraphStack
from ._template import GraphTemplate as GraphTemplate
from ._template import NodeRange as NodeRange

if TYPE_CHECKING:
    from ._graph import ParameterGraph as ParameterGraph
    from ._graph import fill as fill
    from ._graph import permute_nodes as permute_nodes
    from ._graph import read as read
    from ._graph import unstack as unstack


def __getattr__(name: str) -> Any:
    # torch_geometric takes seconds to import, and training on dense stacks does not need it
    if name in ("ParameterGraph", "fill", "permute_nodes", "read", "unstack"):
        from . import _graph

        return getattr(_graph, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
