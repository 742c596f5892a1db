"""The models by name, and what they all are."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import trust
from ..errors import MetanetError
from ..graph import GraphStack
from ..registry import Registry
from ._layout import DenseLayout, Layout
from ._sparse import SparseLayout

Graphs = Sequence[GraphStack] | Any
"""Stacks of graphs of one architecture each, or a batch.

The batch is a torch-geometric ``Data`` or ``Batch`` of parameter graphs.
"""


_LISTED, _LONGEST = 12, 120  # tensors that a message names, and characters of a line
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Metanet:
    """A model that reads other networks' parameter graphs.

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
    # the type is told.
    if TYPE_CHECKING:

        def __call__(self, graphs: Graphs) -> Float[Tensor, "graphs out"]: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> "Metanet":
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
        bound.apply_defaults()
        # not by setattr: that of nn.Module works only after its __init__
        object.__setattr__(
            self, "arguments", {k: v for k, v in bound.arguments.items() if k != "self"}
        )
        object.__setattr__(self, "meta", {})
        return self

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
    """A metanetwork proper: a differentiable function of the weights, trained by gradients."""

    def layout(self, graphs: Graphs) -> Layout:
        """The graphs as the model reads them, on its device and in its dtype."""
        like = next(self.parameters())
        return read_graphs(graphs, like.device, like.dtype)

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes the normalisation of the weights from training graphs; it is part of the saved
        model."""
        raise NotImplementedError

    def forward(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.state_dict())

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        expected = self.state_dict()
        problems = [
            f"  missing     {name} {tuple(t.shape)}"
            for name, t in expected.items()
            if name not in tensors
        ]
        problems += [
            f"  unexpected  {name} {tuple(t.shape)}"
            for name, t in tensors.items()
            if name not in expected
        ]
        problems += [
            f"  shape       {name} is {tuple(tensors[name].shape)}, expected {tuple(t.shape)}"
            for name, t in expected.items()
            if name in tensors and tensors[name].shape != t.shape
        ]
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
        self.load_state_dict(dict(tensors))


def read_graphs(graphs: Graphs, device: torch.device, dtype: torch.dtype) -> Layout:
    """Stacks as a dense layout, a torch-geometric batch as a sparse one."""
    if hasattr(graphs, "edge_index"):  # not isinstance: importing torch-geometric takes seconds
        return SparseLayout(graphs, device, dtype)
    graphs = (
        [graphs]
        if isinstance(graphs, GraphStack) or not isinstance(graphs, Iterable)
        else list(graphs)
    )
    for item in graphs:
        if not isinstance(item, GraphStack):
            raise MetanetError(
                "a metanetwork reads a sequence of GraphStack or a torch-geometric Data or Batch of parameter graphs, "
                f"got {type(item).__name__}"
            )
    return DenseLayout(graphs, device, dtype)


MODELS: Registry[type[Metanet]] = Registry(
    "model", package="metanet.nn.models", group="metanet.models"
)
"""Every model by its name."""


def register(name: str) -> Callable[[type[Metanet]], type[Metanet]]:
    """Registers a model; the parametrised tests pick it up by themselves.

    Raises:
        MetanetError: there is one of this name, or what is registered is no metanetwork: a class
            derived from :class:`Metanet` that takes ``out_dim`` by name.
    """

    def decorate(cls: type[Metanet]) -> type[Metanet]:
        if not (isinstance(cls, type) and issubclass(cls, Metanet)):
            raise MetanetError(
                f"model {name!r}: {cls!r} is no metanetwork: expected a class derived from Metanet"
            )
        takes = inspect.signature(cls.__init__).parameters
        if "out_dim" not in takes:
            raise MetanetError(
                f"model {name!r}: {cls.__qualname__} takes {', '.join(takes)}; it must take out_dim, "
                "which the task tells"
            )
        MODELS.add(name, cls)
        cls.name = name
        return cls

    return decorate


def find(name: str) -> type[Metanet]:
    """The class of a model, by its name.

    The name that it is registered under, or its module, ``package.module`` or
    ``package.module:Class``, if it is one's own.

    Args:
        name: from the command line or from Python: a module that it names is imported.

    Raises:
        MetanetError: there is none; the message lists the choices.
    """
    return MODELS.find(name)


def reference(cls: type[Metanet]) -> str | None:
    """``package.module:Class`` of a model that is none of metanet's own.

    ``None`` where nobody could import it.
    """
    module, qualname = cls.__module__, cls.__qualname__
    if module == "__main__" or module.split(".")[0] == "metanet" or "<" in qualname:
        return None
    return f"{module}:{qualname}"


def build(name: str, **arguments: Any) -> Metanet:
    """A model by name.

    >>> build("gmn", width=8, layers=1, out_dim=3).name
    'gmn'

    Args:
        name: as for :func:`find`.
        **arguments: of its class.

    Raises:
        MetanetError: no such model, or no such argument; the message lists the choices.
    """
    cls = find(name)
    allowed = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    unknown = [k for k in arguments if k not in allowed]
    if unknown:
        listed = ", ".join(trust.shown(k)[1:-1] for k in unknown[:5])
        raise MetanetError(
            f"model {name!r} has no argument {listed}. It takes: {', '.join(allowed)}"
        )
    return cls(**arguments)
