"""The architecture: everything known of a network without its weights."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor, nn

from .checkpoints import Checkpoint, are_plain, atomic_write, check_plain, load_checkpoint
from .documents import Document, read_json, validated
from .errors import CheckpointError, MetanetError, TraceError, brief
from .graph import GraphTemplate, TemplateBuilder
from .symmetry import Derivation, SymmetrySpec, derive
from .tracing import Trace, check_module, example_inputs, record

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

    from .graph import ParameterGraph

_FORMAT = 1


class _File(Document):
    """What :meth:`Architecture.save` writes."""

    metanet: int
    name: str
    spec: dict[str, Any]
    template: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, eq=False, repr=False)
class Architecture:
    """What :func:`trace` returns: a network's symmetries and graph template.

    It is reused for all checkpoints of the network.

    Attributes:
        name: class of the traced module.
        spec: the symmetries.
        warnings: operations without a rule, tensors that were not read, paths not covered.
        recording: the recorded forward pass; ``None`` when loaded from a file.
        derivation: how the symmetries came out of it; ``None`` when loaded from a file.
    """

    name: str
    spec: SymmetrySpec
    warnings: tuple[str, ...] = ()
    recording: Trace | None = None
    derivation: Derivation | None = None
    _loaded: GraphTemplate | None = None

    @cached_property
    def _builder(self) -> TemplateBuilder:
        if self.recording is None or self.derivation is None:
            raise MetanetError(
                "this architecture was loaded from a file and cannot run: trace the module again"
            )
        return TemplateBuilder(self.recording, self.derivation)

    @cached_property
    def template(self) -> GraphTemplate:
        """Structure of the parameter graph, built when first asked for."""
        return self._loaded if self._loaded is not None else self._builder.template

    @property
    def template_warnings(self) -> tuple[str, ...]:
        """Tensors without a place in the parameter graph (none when loaded from a file)."""
        if self._loaded is not None:
            return ()
        _ = self.template
        return tuple(self._builder.warnings)

    @cached_property
    def site_values(self) -> Mapping[int, tuple[int, int]]:
        """For node ranges that are neurons: the recorded value they show in, and its axis."""
        return self._builder.site_values()

    @cached_property
    def has_plain_names(self) -> bool:
        """Whether its own names are none that quantised weights, their scales or adapters have."""
        return are_plain([*self.spec.tensors, *self.template.extras])

    @cached_property
    def _coarse(self) -> GraphTemplate:
        return self.template.coarse()

    def graph_template(self, granularity: str = "neuron") -> GraphTemplate:
        """The template, built once.

        Args:
            granularity: ``"neuron"``: an edge for every entry. ``"tensor"``: a node for every group
                of neurons and one edge with summary features for every tensor, for networks whose
                neuron graph would not fit.

        Raises:
            MetanetError: an unknown granularity.
        """
        if granularity not in ("neuron", "tensor"):
            raise MetanetError(f"granularity={granularity!r}: choose neuron or tensor")
        return self.template if granularity == "neuron" else self._coarse

    def activations(self, state: Mapping[str, Tensor], *inputs: Tensor) -> dict[int, Tensor]:
        """What every neuron shows on the given inputs, by node range; runs the recording again,
        also under ``vmap``.

        Args:
            state: a state dict of this architecture.
            inputs: of exactly the shapes of the example inputs.

        Returns:
            For each node range of neurons a tensor ``(neurons, ...)``: the neuron axis first, the
            value's other axes (batch, positions) after it in their order.

        Raises:
            MetanetError: the architecture was loaded from a file, which does not keep the
                recording.
        """
        site_values = self.site_values
        assert self.recording is not None  # else there are no site values
        values = self.recording.replay(state, *inputs)
        return {
            number: values[value].movedim(axis, 0) for number, (value, axis) in site_values.items()
        }

    def __repr__(self) -> str:
        notes = f", {len(self.warnings)} warnings" if self.warnings else ""
        return f"Architecture({self.name}: {self.spec!r}{notes})"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>warning: {escape(w)}</p>" for w in self.warnings)
        return f"<b>{escape(self.name)}</b>{self.spec._repr_html_()}{notes}"

    def __str__(self) -> str:
        notes = "".join(f"\nwarning: {w}" for w in self.warnings)
        return f"{self.name}\n{self.spec}{notes}"

    def save(self, path: str | Path) -> None:
        """Write as JSON (the recording is not kept)."""
        data = {
            "metanet": _FORMAT, "name": self.name, "spec": self.spec.to_json(),
            "template": self.template.to_json(), "warnings": list(self.warnings),
        }  # fmt: skip
        with atomic_write(path) as temporary:
            Path(temporary).write_text(json.dumps(data))

    @classmethod
    def load(cls, path: str | Path) -> "Architecture":
        """Read what :meth:`save` wrote.

        Raises:
            MetanetError: the file is missing, or no architecture of this format.
        """
        data = read_json(path)
        if not isinstance(data, dict) or data.get("metanet") != _FORMAT:
            raise MetanetError(f"{path} is not an architecture saved by this version of metanet")
        file = validated(_File, data, f"'{path}'")
        spec = SymmetrySpec.from_json(file.spec, f"the symmetry spec in '{path}'")
        template = GraphTemplate.from_json(file.template, f"the graph template in '{path}'")
        for name, shape in template.shapes.items():
            if name in spec.tensors and spec.tensors[name].shape != shape:
                raise MetanetError(
                    f"'{path}' is damaged: {brief(name)} is {brief(shape)} in its graph template, "
                    f"{brief(spec.tensors[name].shape)} in its symmetry spec"
                )
        return cls(file.name, spec, tuple(file.warnings), _loaded=template)


def trace(model: nn.Module, *inputs: Any, check_inputs: Any = None, **kwargs: Any) -> Architecture:
    """Derive the symmetries of a network from one forward pass, or from two.

    The model is copied, not changed; it may live on the meta device. The example should be of
    generic sizes: a batch of 2 or more, a sequence of 3 or more and longer than any window. Along
    an axis of size 1 nothing can be told apart, and what only some sizes allow would be taken for a
    symmetry: ``check_inputs`` of other sizes rule that out.

    Args:
        model: any module; runs in eval mode.
        inputs, kwargs: example inputs, as in ``model(*inputs, **kwargs)``. They may be left out for
            networks whose configuration tells them (timm, transformers, torchvision): see
            :func:`metanet.tracing.example_inputs`.
        check_inputs: a second example: a tensor, a tuple of positional inputs, a dict of keyword
            inputs, or ``(args, kwargs)``. What comes out holds for both.

    Raises:
        TraceError: no module, TorchScript, inputs missing, a forward that raises, no tensor among
            the outputs.
    """
    check_module(model)
    examples = [(inputs, kwargs)]
    if not inputs and not kwargs:
        example = example_inputs(model)
        if example is None:
            raise TraceError(
                f"tracing {type(model).__name__} needs example inputs: "
                "trace(model, x) with x as in model(x), batch "
                "size 2 or more. Only timm, transformers and torchvision networks tell theirs themselves"
            )
        examples = [(example.args, dict(example.kwargs))]
        if check_inputs is None:
            check_inputs = example.check
    if check_inputs is not None:
        examples.append(_call(check_inputs))
    recordings = [record(model, args, keywords) for args, keywords in examples]
    solved = derive(*recordings)
    return Architecture(type(model).__name__, solved.spec, solved.warnings, recordings[0], solved)


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs in any of the forms of ``check_inputs`` as positional and keyword inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], Mapping):
        args, keywords = inputs
        return (args if isinstance(args, tuple) else (args,)), dict(keywords)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


@overload
def to_graph(
    source: Sequence[Mapping[str, Tensor]], arch: Architecture, granularity: str = "neuron"
) -> "Batch": ...
@overload
def to_graph(
    source: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    arch: Architecture,
    granularity: str = "neuron",
) -> "ParameterGraph": ...
def to_graph(
    source: nn.Module
    | Mapping[str, Tensor]
    | Sequence[Mapping[str, Tensor]]
    | str
    | os.PathLike[str],
    arch: Architecture,
    granularity: str = "neuron",
) -> "ParameterGraph | Batch":
    """A checkpoint as a :class:`~metanet.graph.ParameterGraph`; several as a batch of them.

    Graph Metanetworks, `Lim et al., ICLR 2024 <https://arxiv.org/abs/2312.04501>`_: neurons are
    nodes, every entry of a parameter or floating-point buffer is one edge, and of a complex one
    two: its real and its imaginary part. ``metanet/graph/template/_schema.py`` lists the attributes.

    Gradients of ``graph.edge_attr`` reach tensors of a state dict that require them;
    ``model.state_dict()`` has none of these, ``dict(model.named_parameters())`` and
    ``model.state_dict(keep_vars=True)`` have.

    >>> import metanet, torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> arch = metanet.trace(net, torch.randn(4, 2))
    >>> metanet.to_graph(net, arch).num_edges           # 2*3 + 3 + 3*1 + 1
    13

    Args:
        source: a module, a state dict (a lazy :class:`~metanet.checkpoints.Checkpoint` too), the
            path of a checkpoint, a list of state dicts, or one state dict whose tensors have one
            more leading axis (which gives a batch).
        arch: what :func:`trace` made of the network.
        granularity: ``"neuron"`` or ``"tensor"``, see :meth:`Architecture.graph_template`.

    Raises:
        CheckpointError: the checkpoint does not fit the architecture, or holds no plain weights
            (:func:`metanet.checkpoints.check_plain`); the message says what differs.
        MetanetError: the graph would not fit into memory, or the arguments are of other kinds.
    """
    from .graph import fill

    if not isinstance(arch, Architecture):
        raise MetanetError(
            f"to_graph(source, arch) needs arch=metanet.trace(model, inputs), not {type(arch).__name__}"
        )
    template = arch.graph_template(granularity)
    if isinstance(source, (str, os.PathLike)):
        return fill(template, _fitting(load_checkpoint(source), arch))
    state = source.state_dict() if isinstance(source, nn.Module) else source
    states = [state] if isinstance(state, Mapping) else list(state)
    lazy = any(
        issubclass(kind, Checkpoint) for kind in set(map(type, states))
    )  # a configuration may lie beside it
    if arch.has_plain_names and not lazy:
        # Whatever has only names of the network is plain: looking at each name would take longer
        # than the graphs.
        try:
            return fill(template, state if isinstance(state, Mapping) else states)
        except CheckpointError:
            _check_all(states, arch)  # says more, if that is what is wrong
            raise
    _check_all(states, arch)
    return fill(template, state if isinstance(state, Mapping) else states)


def _check_all(states: Sequence[Mapping[str, Tensor]], arch: Architecture) -> None:
    for state in states:
        check_plain(state, network=arch.spec.tensors)


def _fitting(checkpoint: Checkpoint, arch: Architecture) -> Checkpoint:
    """A checkpoint by the names of the architecture; integer buffers may be missing, as may names
    of tied tensors."""
    check_plain(checkpoint, network=arch.spec.tensors)
    template = arch.template
    tied = {name: names[0] for _, names, _, _ in template.stretches for name in names}
    expected: dict[str, Any] = {name: template.shapes[first] for name, first in tied.items()}
    names = checkpoint.keys()
    return checkpoint.fit(
        expected | {n: checkpoint.shapes[n] for n in template.extras if n in names}, tied=tied
    )


def from_graph(graph: "Data", arch: Architecture) -> dict[str, Tensor]:
    """The state dict of a graph, bit for bit, under all names of tied tensors.

    Raises:
        CheckpointError: the graph is of another architecture, or a batch.
        MetanetError: the graph is of granularity ``"tensor"``.
    """
    from .graph import read

    return read(arch.template, graph)
