"""The architecture: everything known of a network without its weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .checkpoints import atomic_write, check_plain
from .errors import MetanetError, TraceError
from .graph import GraphTemplate, TemplateBuilder
from .symmetry import Derivation, SymmetrySpec, derive, read_json
from .tracing import Trace, example_inputs, record

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Architecture:
    """What :func:`trace` returns: symmetries and graph template of a network, reused for all its checkpoints.

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
    recording: Trace | None = field(default=None, repr=False)
    derivation: Derivation | None = field(default=None, repr=False)
    _loaded: GraphTemplate | None = field(default=None, repr=False)

    @cached_property
    def _builder(self) -> TemplateBuilder:
        if self.recording is None or self.derivation is None:
            raise MetanetError("this architecture was loaded from a file and cannot run: trace the module again")
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
    def _coarse(self) -> GraphTemplate:
        return self.template.coarse()

    def graph_template(self, granularity: str = "neuron") -> GraphTemplate:
        """The template, built once.

        Args:
            granularity: ``"neuron"``: an edge for every entry. ``"tensor"``: a node for every group of neurons and one
                edge with summary features for every tensor, for networks whose neuron graph would not fit.

        Raises:
            MetanetError: an unknown granularity.
        """
        if granularity not in ("neuron", "tensor"):
            raise MetanetError(f"granularity={granularity!r}: choose neuron or tensor")
        return self.template if granularity == "neuron" else self._coarse

    def activations(self, state: Mapping[str, Tensor], *inputs: Tensor) -> dict[int, Tensor]:
        """What every neuron shows on the given inputs, by node range; runs the recording again, also under ``vmap``.

        Args:
            state: a state dict of this architecture.
            inputs: of exactly the shapes of the example inputs.

        Returns:
            For each node range of neurons a tensor ``(neurons, ...)``: the neuron axis first, the value's other axes
            (batch, positions) after it in their order.

        Raises:
            MetanetError: the architecture was loaded from a file, which does not keep the recording.
        """
        site_values = self.site_values
        values = self.recording.replay(state, *inputs)
        return {number: values[value].movedim(axis, 0) for number, (value, axis) in site_values.items()}

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
        try:
            spec, template = SymmetrySpec.from_json(data["spec"]), GraphTemplate.from_json(data["template"])
            return cls(data["name"], spec, tuple(data["warnings"]), _loaded=template)
        except KeyError as e:
            raise MetanetError(f"{path} is not an architecture: {e} is missing") from e


def trace(model: nn.Module, *inputs: Any, check_inputs: Any = None, **kwargs: Any) -> Architecture:
    """Derive the symmetries of a network from one forward pass, or from two.

    The model is copied, not changed; it may live on the meta device. The example should be of generic sizes: a batch of
    2 or more, a sequence of 3 or more and longer than any window. Along an axis of size 1 nothing can be told apart,
    and what only some sizes allow would be taken for a symmetry: ``check_inputs`` of other sizes rule that out.

    Args:
        model: any module; runs in eval mode.
        inputs, kwargs: example inputs, as in ``model(*inputs, **kwargs)``. They may be left out for networks whose
            configuration tells them (timm, transformers, torchvision): see :func:`metanet.tracing.example_inputs`.
        check_inputs: a second example: a tensor, a tuple of positional inputs, a dict of keyword inputs, or
            ``(args, kwargs)``. What comes out holds for both.

    Raises:
        TraceError: inputs missing, a forward that raises, no tensor among the outputs.
    """
    examples = [(inputs, kwargs)]
    if not inputs and not kwargs:
        example = example_inputs(model)
        if example is None:
            raise TraceError(
                f"tracing {type(model).__name__} needs example inputs: trace(model, x) with x as in model(x), batch "
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


def to_graph(
    source: nn.Module | Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    arch: Architecture,
    granularity: str = "neuron",
) -> Any:
    """A checkpoint as a :class:`~metanet.graph.ParameterGraph`; several as a batch of them.

    Graph Metanetworks, `Lim et al., ICLR 2024 <https://arxiv.org/abs/2312.04501>`_: neurons are nodes, every entry of a
    parameter or floating-point buffer is one edge. ``metanet/graph/_schema.py`` lists the attributes.

    Args:
        source: a module, a state dict (a lazy :class:`~metanet.checkpoints.Checkpoint` too), a list of state dicts, or
            one state dict whose tensors have one more leading axis.
        arch: what :func:`trace` made of the network.
        granularity: ``"neuron"`` or ``"tensor"``, see :meth:`Architecture.graph_template`.

    Raises:
        CheckpointError: the checkpoint does not fit the architecture, or holds no plain weights
            (:func:`metanet.checkpoints.check_plain`); the message says what differs.
        MetanetError: the graph would not fit into memory.
    """
    from .graph import fill

    state = source.state_dict() if isinstance(source, nn.Module) else source
    for each in [state] if isinstance(state, Mapping) else state:
        check_plain(each, network=arch.spec.tensors)
    return fill(arch.graph_template(granularity), state)


def from_graph(graph: Any, arch: Architecture) -> dict[str, Tensor]:
    """The state dict of a graph, bit for bit, under all names of tied tensors.

    Raises:
        CheckpointError: the graph is of another architecture, or a batch.
        MetanetError: the graph is of granularity ``"tensor"``.
    """
    from .graph import read

    coarse = graph.edge_attr.shape[0] != arch.template.num_edges and graph.edge_attr.shape[-1] > 1
    return read(arch.graph_template("tensor" if coarse else "neuron"), graph)
