"""Neural networks as data: their symmetries, graphs of their weights, and models that read them.

The symmetries of an architecture are derived once, by tracing it (:func:`metanet.trace`); parameter
graphs, metanetworks, alignment and merging all read that one :class:`~metanet.SymmetrySpec`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from . import alignment as alignment
    from . import checkpoints as checkpoints
    from . import commands as commands
    from . import config as config
    from . import errors as errors
    from . import evaluation as evaluation
    from . import graph as graph
    from . import landscape as landscape
    from . import merging as merging
    from . import nn as nn
    from . import plugins as plugins
    from . import registry as registry
    from . import sources as sources
    from . import symmetry as symmetry
    from . import tasks as tasks
    from . import testing as testing
    from . import tracing as tracing
    from . import trust as trust
    from . import verification as verification
    from . import zoo as zoo
    from .alignment import Alignment as Alignment
    from .alignment import align as align
    from .architecture import Architecture as Architecture
    from .architecture import from_graph as from_graph
    from .architecture import to_graph as to_graph
    from .architecture import trace as trace
    from .checkpoints import load_checkpoint as load_checkpoint
    from .checkpoints import save_checkpoint as save_checkpoint
    from .errors import MetanetError as MetanetError
    from .graph import GraphTemplate as GraphTemplate
    from .graph import ParameterGraph as ParameterGraph
    from .landscape import barrier as barrier
    from .merging import merge as merge
    from .symmetry import SymmetrySpec as SymmetrySpec
    from .symmetry import Transform as Transform
    from .verification import Verification as Verification
    from .verification import verify as verify

# Where each public name lives: imported when first used, so that `import metanet` and `metanet
# --help` stay quick.
_HOME = {
    "alignment": ("Alignment", "align"),
    "architecture": ("Architecture", "from_graph", "to_graph", "trace"),
    "checkpoints": ("load_checkpoint", "save_checkpoint"),
    "errors": ("MetanetError",),
    "graph": ("GraphTemplate", "ParameterGraph"),
    "landscape": ("barrier",),
    "merging": ("merge",),
    "symmetry": ("SymmetrySpec", "Transform"),
    "verification": ("Verification", "verify"),
}
_WHERE = {name: room for room, names in _HOME.items() for name in names}
# The rooms themselves, so that metanet.nn.build(...) needs no import of its own.
_ROOMS = (
    "alignment", "checkpoints", "commands", "config", "errors", "evaluation", "graph", "landscape",
    "merging", "nn", "plugins", "registry", "sources", "symmetry", "tasks", "testing", "tracing",
    "trust", "verification", "zoo",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'metanet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_WHERE, *_ROOMS, "__version__"])
