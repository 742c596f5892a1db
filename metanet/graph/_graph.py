"""One checkpoint as a torch-geometric graph."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, KeysView, Mapping, Sequence, Set
from functools import cache
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot
from torch_geometric.data import Batch, Data

from ..checkpoints import Checkpoint
from ..errors import CheckpointError, MetanetError
from ._memory import refuse_too_large
from .template._bits import real_parts, same_bits
from .template._schema import ACTIVATIONS, EDGE_KEYS, NODE_KEYS, NodeType
from .template._summary import HOLDS_SUMMARIES, SUMMARY
from .template._template import GraphStack, GraphTemplate

_SKELETONS: WeakKeyDictionary[GraphTemplate, OrderedDict[tuple, Batch]] = WeakKeyDictionary()
_KEPT = 4  # skeletons per template


class ParameterGraph(Data):
    """A network's parameters as a graph: neurons are nodes, every entry of a parameter is an edge.

    Graph Metanetworks, `Lim et al., ICLR 2024 <https://arxiv.org/abs/2312.04501>`_. The attributes
    are listed in ``metanet/graph/template/_schema.py``. All but ``edge_attr``, ``extras`` and
    ``dtypes`` are shared by the graphs of one template: clone the graph before changing them in place.
    """

    @property
    def x(self) -> Float[Tensor, "nodes features"]:
        """What is known of every node as numbers, for layers of torch-geometric that read
        ``data.x``.

        Columns: one for each kind of node (:class:`~metanet.graph.NodeType`), one for each
        activation (:data:`~metanet.graph.ACTIVATIONS`), all 0 or 1; then the depth (from 0 at the
        inputs to 1), and the logarithm of the number of neurons beside it. Metanetworks embed the
        integers themselves. Made when asked for, unless ``graph.x = ...`` was set.
        """
        if "x" in self._store:
            return self._store["x"]
        kinds = one_hot(self.node_type, len(NodeType))
        activations = one_hot(self.activation, len(ACTIVATIONS))
        deepest = self.depth[self.batch] if self.batch is not None else self.depth
        depth = self.node_layer / deepest.clamp(min=1)
        width = self.node_width.clamp(min=1).log()
        return torch.cat([kinds, activations, depth[:, None], width[:, None]], 1).to(
            self.edge_attr.dtype
        )

    @x.setter
    def x(self, value: Tensor | None) -> None:
        self._store["x"] = value

    @property
    def num_node_features(self) -> int:
        """Columns of :attr:`x`."""
        return self.x.shape[1] if self.x.ndim > 1 else 1

    def validate(self, raise_on_error: bool = True) -> bool:
        """Check that the attributes fit each other.

        Raises:
            MetanetError: naming the attributes and the numbers, if ``raise_on_error``.
        """
        problems = [
            f"{key} is missing"
            for key in ("edge_index", "edge_attr", *EDGE_KEYS, *NODE_KEYS)
            if key not in self
        ]
        if not problems:
            problems = [*self._of_edges(), *self._of_nodes()]
        if problems and raise_on_error:
            raise MetanetError("not a valid parameter graph:\n  " + "\n  ".join(problems))
        return not problems

    def _of_edges(self) -> list[str]:
        problems = []
        nodes, edges = self.num_nodes, self.edge_attr.shape[0]
        if tuple(self.edge_index.shape) != (2, edges):
            problems.append(
                f"edge_index is {tuple(self.edge_index.shape)}, expected (2, {edges}) "
                f"as edge_attr has {edges} rows"
            )
        elif edges and int(self.edge_index.max()) >= nodes:
            problems.append(
                f"edge_index names node {int(self.edge_index.max())}, but there are {nodes} nodes"
            )
        elif edges and int(self.edge_index.min()) < 0:
            problems.append(f"edge_index names node {int(self.edge_index.min())}; the first is 0")
        elif alone := nodes - len(torch.unique(self.edge_index)):
            problems.append(f"{alone} of {nodes} nodes have no edge")
        if not self.edge_attr.is_floating_point() or self.edge_attr.ndim != 2:
            problems.append(
                f"edge_attr is {tuple(self.edge_attr.shape)} of {self.edge_attr.dtype}, "
                "expected (E, 1) floats"
            )
        for key in EDGE_KEYS:
            if getattr(self, key).shape[0] != edges:
                problems.append(
                    f"{key} has {getattr(self, key).shape[0]} rows, expected one per edge ({edges})"
                )
        return problems

    def _of_nodes(self) -> list[str]:
        problems = []
        for key in NODE_KEYS:
            rows = getattr(self, key).shape[0]
            if rows != self.num_nodes:
                problems.append(f"{key} has {rows} rows, expected one per node ({self.num_nodes})")
        return problems


def fill(
    template: GraphTemplate, state: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]
) -> ParameterGraph | Batch:
    """The graph of one state dict, or the batch of many.

    Many are a list of them, or one whose tensors have a leading axis.

    A batch takes little more than copying the values: its structure is put together once per number
    of graphs and then shared.

    Raises:
        CheckpointError: a tensor is missing, has another shape or a name that the network does not
            know.
        MetanetError: the graph would not fit into memory, or the list is empty.
    """
    named = _names(template)
    if isinstance(state, Mapping):
        _refuse_unknown(template, named, [state])
        return _of_mapping(template, named, state)
    states = list(state)
    if not states:
        raise MetanetError("there are no checkpoints to make graphs of: the list is empty")
    _refuse_unknown(template, named, states)
    columns = {name: _column(name, states) for name in named if name in states[0]}
    stacked = {name: torch.stack(column) for name, column in columns.items()}
    dtypes = {tensor.dtype for column in columns.values() for tensor in column}
    return _of_many(template, template.values(stacked), states, list(columns), dtypes)


def _of_mapping(
    template: GraphTemplate, named: Set[str], state: Mapping[str, Tensor]
) -> ParameterGraph | Batch:
    """The graph of one state dict, or the batch of one whose tensors have a leading axis."""
    if isinstance(state, Checkpoint) and template.fine is None:
        refuse_too_large(template)
        state = dict(state)  # all of it is needed, and each reading reads the file
    values = template.values(state)
    if values.ndim == 2 and template.fine is not None:
        return _graph(template, values, {}, {})
    if values.ndim == 2:
        refuse_too_large(template)
        return _graph(template, values, *_beside(template, named, state, values.dtype))
    names = [name for name in named if name in state]
    dtypes = {state[name].dtype for name in names}
    states = ({name: stack[i] for name, stack in state.items()} for i in range(len(values)))
    return _of_many(template, values, states, names, dtypes)


def _of_many(
    template: GraphTemplate,
    values: Tensor,
    states: Iterable[Mapping[str, Tensor]],
    names: Sequence[str],
    dtypes: Set[torch.dtype],
) -> Batch:
    """The batch of many state dicts whose edge values are known.

    Args:
        names: of the tensors that are stored in edges.
        dtypes: of all of these.
    """
    if not template.extras and dtypes == {values.dtype}:
        # nothing to say of any one that is not said of all
        same = dict.fromkeys(names, _name(values.dtype))
        nothing: list[dict[str, Tensor]] = [{} for _ in values]
        return _batch(template, values, nothing, [dict(same) for _ in values])
    named = _names(template)
    beside = [_beside(template, named, state, values.dtype) for state in states]
    return _batch(template, values, [b[0] for b in beside], [b[1] for b in beside])


def unstack(
    stack: GraphStack,
    extras: Mapping[str, Tensor] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Batch:
    """A dense stack as one batch of sparse graphs."""
    split = [{k: v[i] for k, v in (extras or {}).items()} for i in range(len(stack))]
    return _batch(stack.template, stack.edge_attr, split, [dict(dtypes or {}) for _ in split])


def _column(name: str, states: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """One tensor of all checkpoints."""
    try:
        tensors = [s[name] for s in states]
    except KeyError:
        missing = next(i for i, s in enumerate(states) if name not in s)
        raise CheckpointError(
            f"checkpoint {missing} of {len(states)} does not have {name}"
        ) from None
    shapes = {t.shape for t in tensors}
    if len(shapes) > 1:
        listed = ", ".join(sorted(str(tuple(s)) for s in shapes))
        raise CheckpointError(
            f"the checkpoints of one batch differ: {name} has the shapes {listed}"
        )
    return tensors


@cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_NAMES: WeakKeyDictionary[GraphTemplate, KeysView[str]] = WeakKeyDictionary()


def _names(template: GraphTemplate) -> KeysView[str]:
    """All names of all tensors that are stored in edges, in order."""
    if template not in _NAMES:
        _NAMES[template] = {
            n: None for s in (template.fine or template).stretches for n in s[1]
        }.keys()
    return _NAMES[template]


def _refuse_unknown(
    template: GraphTemplate, named: Set[str], states: Sequence[Mapping[str, Tensor]]
) -> None:
    known = None
    for state in states:
        if state.keys() <= named:
            continue
        known = known or {
            *named,
            *template.extras,
            *(n for n, shape in template.shapes.items() if 0 in shape),
        }
        unknown = [n for n in state if n not in known]
        if unknown:
            raise CheckpointError(
                f"the checkpoint has {len(unknown)} tensors that the architecture does not know: "
                f"{', '.join(unknown[:10])}{', ...' if len(unknown) > 10 else ''}. "
                "Drop them, or trace the network "
                "that they belong to"
            )


def _beside(
    template: GraphTemplate, named: Set[str], state: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the graph carries besides edges: buffers, tensors whose bits an edge cannot hold; and
    all dtypes."""
    extras = {name: state[name] for name in template.extras if name in state}
    dtypes = {}
    for name in named:
        tensor = state.get(name)
        if tensor is not None:
            dtypes[name] = _name(tensor.dtype)
            if tensor.dtype != dtype and not _survives(real_parts(tensor), dtype):
                extras[name] = tensor
    return extras, dtypes


def _survives(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether all bits come back from the wider type: those of numbers do, those of some NaN do
    not."""
    wide = tensor.detach().to(dtype)
    if not wide.isnan().any():
        return True
    return same_bits(wide.to(tensor.dtype), tensor.detach())


def _graph(
    template: GraphTemplate, values: Tensor, extras: Mapping[str, Tensor], dtypes: Mapping[str, str]
) -> ParameterGraph:
    static = {k: v.to(values.device) for k, v in template.static.items()}
    shared = {"num_nodes": template.num_nodes, "extras": [dict(extras)], "dtypes": [dict(dtypes)]}
    return ParameterGraph(edge_attr=values, **shared, **static)


def _batch(
    template: GraphTemplate,
    values: Tensor,
    extras: Sequence[dict[str, Tensor]],
    dtypes: Sequence[dict[str, str]],
) -> Batch:
    """A batch as ``Batch.from_data_list`` would make it; its structure comes from the last one of
    this size."""
    count = values.shape[0]
    refuse_too_large(template, count)
    skeletons = _SKELETONS.setdefault(template, OrderedDict())
    key = (count, values.device, values.dtype)
    if key not in skeletons:
        one = _graph(template, values[0].detach(), {}, {})
        skeletons[key] = Batch.from_data_list([one] * count)
        if len(skeletons) > _KEPT:
            skeletons.popitem(last=False)
    skeletons.move_to_end(key)
    out = copy.copy(skeletons[key])
    # straight into the store: setting attributes one by one would take longer than all the rest
    out._store["edge_attr"] = values.reshape(-1, values.shape[-1])
    out._store["extras"] = [[e] for e in extras]
    out._store["dtypes"] = [[d] for d in dtypes]
    return out


def read(template: GraphTemplate, graph: Data) -> dict[str, Tensor]:
    """The state dict of a graph: the exact inverse of :func:`fill`.

    The order of the graph's nodes does not matter.

    Raises:
        CheckpointError: the graph does not have this architecture's number of edges or is a batch, or
            its edges hold something else than one number.
        MetanetError: the graph is coarse.
    """
    if isinstance(graph, Batch):
        raise CheckpointError(
            f"this is a batch of {graph.num_graphs} graphs: read them one by one (to_data_list)"
        )
    edges, features = graph.edge_attr.shape
    if features == len(SUMMARY):
        raise MetanetError(HOLDS_SUMMARIES)
    if features != 1:
        raise CheckpointError(
            f"the graph has {features} features for each edge, expected 1: the entry of a tensor"
        )
    if edges != template.num_edges:
        raise CheckpointError(
            f"the graph has {edges} edges, this architecture {template.num_edges}"
        )
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
    for key in NODE_KEYS:
        out[key] = graph[key][order]
    return out
