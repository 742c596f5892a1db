"""What all metanetworks are: those that are trained by gradients, and all others."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import MetanetError
from ..graph import GraphStack
from ._layout import DenseLayout, Layout
from ._readout import Readout
from ._sparse import SparseLayout

Graphs = Sequence[GraphStack] | Any
"""What is read: stacks of graphs of one architecture each, or a torch-geometric batch of graphs."""

_LISTED = 12  # tensors that a message names
_LONGEST = 120  # characters of a line
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Metanet:
    """A model that reads other networks' parameter graphs.

    This class serves models that are no ``nn.Module`` (trees, nearest neighbours): it gives them
    everything that a run asks of a model, so that nobody has to ask of which kind one is. Such a
    model overrides :meth:`fit`, :meth:`predict`, :meth:`tensors` and :meth:`load_tensors`.
    :class:`NeuralMetanet` is the base of all others.

    Attributes:
        name: under which it is registered.
        arguments: everything the constructor was called with, defaults included: a saved model is
            built from them.
        meta: what else belongs to a trained model and fits into JSON (scaling of the target,
            metrics).
    """

    name: ClassVar[str]
    arguments: dict[str, Any]
    meta: dict[str, Any]

    # Where the answer comes from is each model's own: nn.Module's __call__, or a class's; here only
    # the type is told. Some models take more inputs, as GMN does.
    if TYPE_CHECKING:

        def __call__(self, graphs: Graphs, *more: Any) -> Float[Tensor, "graphs out"]: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> "Metanet":
        self = super().__new__(cls)
        # partial: copies and unpickled models come here without arguments, and get theirs later
        bound = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs)
        bound.apply_defaults()
        arguments = {name: value for name, value in bound.arguments.items() if name != "self"}
        # not by setattr: that of nn.Module works only after its __init__
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "meta", {})
        return self

    def __repr__(self) -> str:
        """As it was made, without what is as by default: ``GMN(width=8, out_dim=3)``."""
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.arguments.items()
            if name not in defaults or value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    # ---------------------------------------------------------------- before training

    def bind(self, architectures: Iterable[Architecture]) -> None:
        """Told of the traced architectures that it will meet: for models that run the networks.

        Nothing happens here; :class:`ProbedGMN` keeps the recordings.
        """

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes the normalisation of the weights from training graphs; it is part of the saved
        model. Nothing to take here."""

    def to_device(self, device: torch.device) -> None:
        """Computes there from now on; the CPU is the place of what is no module."""

    def parameter_count(self) -> int:
        """How many numbers training by gradients changes: none here."""
        return 0

    # ---------------------------------------------------------------- learning and answering

    def fit(self, graphs: Graphs, targets: Tensor) -> None:
        """Learns from scratch.

        Args:
            graphs: training networks.
            targets: ``(graphs,)`` or ``(graphs, out_dim)``, in their order.

        Raises:
            MetanetError: the model has no way to.
        """
        raise MetanetError(
            f"model {self.name!r} can't be trained: derive it from NeuralMetanet to train it by "
            "gradients, or give it fit(graphs, targets)"
        )

    def predict(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        """The answers of the trained model, ``(graphs, out_dim)``: without dropout or gradients.

        Raises:
            MetanetError: the model has no way to.
        """
        raise MetanetError(f"model {self.name!r} can't answer: give it predict(graphs)")

    # ---------------------------------------------------------------- saving

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, normalisation included."""
        raise NotImplementedError

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`.

        Raises:
            MetanetError: the tensors are not those of this model.
        """
        raise NotImplementedError


class NeuralMetanet(Metanet, nn.Module):
    """A metanetwork proper: a differentiable function of the weights, trained by gradients.

    A model overrides ``__init__`` (which takes ``out_dim``), :meth:`fit_normalisation` and
    :meth:`forward`. In ``forward``, :meth:`layout` gives the graphs in a form on which one code
    runs for dense stacks and sparse batches alike.
    """

    def layout(self, graphs: Graphs) -> Layout:
        """The graphs as the model reads them, on its device and in its dtype.

        Raises:
            MetanetError: there are no graphs, or they are something else.
        """
        like = next(self.parameters())
        return read_graphs(graphs, like.device, like.dtype)

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes the normalisation of the weights from training graphs; it is part of the saved
        model."""
        raise NotImplementedError

    def forward(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        """One answer for each graph, in the order of the stacks or of the batch."""
        raise NotImplementedError

    def predict(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        """The answers in evaluation mode and without gradients; the mode is restored."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return self(graphs)
        finally:
            self.train(was_training)

    def to_device(self, device: torch.device) -> None:
        """Moves parameters and buffers, in place."""
        self.to(device)

    def parameter_count(self) -> int:
        """How many numbers training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def tensors(self) -> dict[str, Tensor]:
        """The state dict: parameters and buffers by name, sharing their memory."""
        return dict(self.state_dict())

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`; the model takes over their dtype.

        Raises:
            MetanetError: names or shapes differ, or no model computes in their dtype.
        """
        tensors = self.with_current_names(tensors)
        problems = _differences(tensors, self.state_dict())
        if problems:
            listed = [line[:_LONGEST] for line in problems[:_LISTED]]
            listed += [f"  and {len(problems) - _LISTED} more"] * (len(problems) > _LISTED)
            raise MetanetError(f"the tensors do not fit model {self.name!r}:\n" + "\n".join(listed))
        dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
        if dtype not in _DTYPES:
            raise MetanetError(
                f"model {self.name!r} can't compute in {dtype}: its tensors are of no trained model"
            )
        self.to(dtype)
        self.load_state_dict(tensors)

    def with_current_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that an earlier version of metanet saved, by the names that they have now."""
        state = dict(tensors)
        for place, part in self.named_modules():
            if isinstance(part, Readout):
                part.rename_former(state, f"{place}.")
        return state


def _differences(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """A line for each tensor that is missing, unexpected or of another shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected_shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    missing = [
        f"  missing     {name} {expected_shapes[name]}"
        for name in expected_shapes
        if name not in shapes
    ]
    unknown = [
        f"  unexpected  {name} {shapes[name]}" for name in shapes if name not in expected_shapes
    ]
    other = [
        f"  shape       {name} is {shapes[name]}, expected {expected_shapes[name]}"
        for name in expected_shapes
        if name in shapes and shapes[name] != expected_shapes[name]
    ]
    return missing + unknown + other


def read_graphs(graphs: Graphs, device: torch.device, dtype: torch.dtype) -> Layout:
    """Stacks as a dense layout, a torch-geometric batch as a sparse one.

    Raises:
        MetanetError: there are no graphs, or they are something else.
    """
    if hasattr(graphs, "edge_index"):  # not isinstance: importing torch-geometric takes seconds
        return SparseLayout(graphs, device, dtype)
    is_one = isinstance(graphs, GraphStack) or not isinstance(graphs, Iterable)
    stacks: list[Any] = [graphs] if is_one else list(graphs)
    for item in stacks:
        if not isinstance(item, GraphStack):
            raise MetanetError(
                "a metanetwork reads a sequence of GraphStack or a torch-geometric Data or Batch of "
                f"parameter graphs, got {type(item).__name__}"
            )
    return DenseLayout(stacks, device, dtype)
