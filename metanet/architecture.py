"""The architecture: everything known of a network without its weights."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .checkpoints import atomic_write
from .errors import MetanetError
from .graph import GraphTemplate, TemplateBuilder
from .symmetry import SymmetrySpec, Transform, derive, leaves_of, read_json
from .tracing import Trace, record, tensors_in

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Architecture:
    """What :func:`trace` returns: symmetries and graph template of a network, reused for all its checkpoints.

    Attributes:
        name: class of the traced module.
        spec: the symmetries.
        template: structure of the parameter graph.
        warnings: operations without a rule, tensors without a place, paths not covered.
        recording: the recorded forward pass; ``None`` when loaded from a file.
        site_values: for node ranges that are neurons: the recorded value they show in, and its axis.
    """

    name: str
    spec: SymmetrySpec
    template: GraphTemplate
    warnings: tuple[str, ...] = ()
    recording: Trace | None = field(default=None, repr=False)
    site_values: Mapping[int, tuple[int, int]] = field(default_factory=dict, repr=False)

    def graph_template(self) -> GraphTemplate:
        """The template, built once."""
        return self.template

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
        if self.recording is None:
            raise MetanetError("this architecture was loaded from a file and cannot run: trace the module again")
        values = self.recording.replay(state, *inputs)
        return {number: values[value].movedim(axis, 0) for number, (value, axis) in self.site_values.items()}

    def __str__(self) -> str:
        notes = "".join(f"\nwarning: {w}" for w in self.warnings)
        return f"{self.name}: {self.template.num_nodes} nodes, {self.template.num_edges} edges\n{self.spec}{notes}"

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
            return cls(data["name"], spec, template, tuple(data["warnings"]))
        except KeyError as e:
            raise MetanetError(f"{path} is not an architecture: {e} is missing") from e


def trace(model: nn.Module, *inputs: Any, **kwargs: Any) -> Architecture:
    """Derive the symmetries and the graph template of a network from one forward pass.

    The model is copied, not changed. Use a batch of 2 or more in the example inputs: along an axis of size 1 nothing
    can be told apart.

    Args:
        model: any module; runs in eval mode.
        inputs, kwargs: example inputs, as in ``model(*inputs, **kwargs)``.

    Raises:
        TraceError: inputs missing, a forward that raises, no tensor among the outputs.
    """
    recording = record(model, inputs, kwargs)
    solved = derive(recording)
    builder = TemplateBuilder(recording, solved)
    template = builder.build()
    warnings = (*solved.warnings, *builder.warnings)
    return Architecture(type(model).__name__, solved.spec, template, warnings, recording, builder.site_values())


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` measured, in float64 with all parameters random.

    Attributes:
        change: largest output change under a random legal transform, relative to the output's spread.
        moved: share of the entries of movable tensors that the transform moved.
        sensitivity: for every movable axis ``(tensor, axis)`` the relative output change when only this axis moves.
    """

    change: float
    moved: float
    sensitivity: Mapping[tuple[str, int], float]

    @property
    def unseen(self) -> tuple[tuple[str, int], ...]:
        """Axes whose illegal relabelling the output does not show."""
        return tuple(k for k, v in self.sensitivity.items() if v < 1e-6)

    def __str__(self) -> str:
        blind = f"; not seen by the output: {', '.join(f'{t} axis {a}' for t, a in self.unseen)}" if self.unseen else ""
        return f"legal change {self.change:.1e}, {self.moved:.0%} moved, {len(self.sensitivity)} axes checked{blind}"


def verify(
    model: nn.Module, spec: SymmetrySpec, *inputs: Any, seed: int = 0, draws: int = 2, **kwargs: Any
) -> Verification:
    """Test a spec against the network itself: legal relabellings keep the function, illegal ones change it.

    Everything runs on a float64 copy whose parameters and norm statistics are all drawn anew, because freshly
    initialised networks hide mistakes (zero biases, unit scales).

    Args:
        draws: how many random transforms; one alone may happen to exchange two units that are dead on these inputs.

    Raises:
        MetanetError: the spec does not fit the model.
    """
    model = copy.deepcopy(model).eval().double()
    generator = torch.Generator().manual_seed(seed)
    state = redraw(model.state_dict(), generator)
    state.update({n: state[t.tied_to] for n, t in spec.tensors.items() if t.tied_to in state})
    missing = [n for n in spec.tensors if n not in state]
    if missing:
        raise MetanetError(
            f"the spec names tensors that {type(model).__name__} does not have: {', '.join(missing[:5])}"
        )
    args, kwargs = (_double(x) for x in (inputs, kwargs))

    def run(sd: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            out = functional_call(model, dict(sd), args, kwargs, tie_weights=False)
        return torch.cat([t.double().flatten() for t in tensors_in(out)])

    want = run(state)
    scale = (want - want.mean()).abs().max().clamp_min(1e-300)
    change, moved, total = 0.0, 0, 0
    sensitivity: dict[tuple[str, int], float] = {}
    for _ in range(draws):
        t = _restless(spec.sample(generator))
        relabelled = t(state)
        change = max(change, float((run(relabelled) - want).abs().max() / scale))
        for name, tensor in spec.tensors.items():
            if tensor.tied_to is not None:
                continue
            tied = [n for n, other in spec.tensors.items() if n == name or other.tied_to == name]
            for axis, expression in enumerate(tensor.axes):
                if any(True for _ in leaves_of(expression)):
                    illegal = {**state, **{n: t.apply(n, state[n], (axis,)) for n in tied}}
                    seen = float((run(illegal) - want).abs().max() / scale)
                    sensitivity[name, axis] = max(seen, sensitivity.get((name, axis), 0.0))
            if any(key[0] == name for key in sensitivity):
                moved, total = moved + int((relabelled[name] != state[name]).sum()), total + state[name].numel()
    return Verification(change, moved / total if total else 0.0, sensitivity)


def _restless(t: Transform) -> Transform:
    """The same transform with every identity in it replaced by a rotation: small groups would often stay put."""
    elements = {}
    for name, element in t.elements.items():
        idle = (element == torch.arange(element.shape[-1])).all(-1, keepdim=True)
        elements[name] = torch.where(idle, element.roll(1, -1), element)
    return Transform(t.spec, elements)


def redraw(state: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Every floating-point entry drawn anew, at the scale of a working network.

    Matrices and kernels at fan-in scale; vectors around 1 if that is where they are (scales), else around 0; running
    variances positive.
    """
    out = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            out[name] = tensor
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        if name.endswith("running_var"):
            out[name] = 0.5 + noise.abs()
        elif tensor.ndim >= 2:
            out[name] = noise / max(tensor[0].numel(), 1) ** 0.5
        else:
            out[name] = float(tensor.numel() > 0 and float(tensor.mean()) > 0.5) + 0.5 * noise
    return out


def _double(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.double() if x.is_floating_point() else x
    if isinstance(x, dict):
        return {k: _double(v) for k, v in x.items()}
    return type(x)(map(_double, x)) if isinstance(x, (list, tuple)) else x


def to_graph(source: nn.Module | Mapping[str, Tensor], arch: Architecture) -> Any:
    """A checkpoint as a :class:`~metanet.graph.ParameterGraph` (stacked tensors: as a batch of them).

    Raises:
        CheckpointError: the checkpoint does not fit the architecture.
    """
    from .graph import fill

    return fill(arch.template, source.state_dict() if isinstance(source, nn.Module) else source)


def from_graph(graph: Any, arch: Architecture) -> dict[str, Tensor]:
    """The state dict of a graph, bit for bit.

    Raises:
        CheckpointError: the graph is of another architecture.
    """
    from .graph import read

    return read(arch.template, graph)
