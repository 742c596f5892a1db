"""Where a network contracts with its weights, whatever modules it is made of, and how a correction
goes into them.

The functions that are called with a parameter tell, not the types of modules: so that layers of
one's own count, and weights that are standardised, normalised or shared before they are used are
seen not to be what their layer uses.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...evaluation import entries
from ...tracing import tensors_in


@dataclass(frozen=True)
class Function:
    """A function that contracts with a weight.

    Attributes:
        weight, bias: which of its arguments they are.
        axis: of the weight, along which the outputs lie.
        places: how many axes of the output stand behind the channels.
    """

    weight: int
    bias: int | None
    axis: int = 0
    places: int = 0


_PRODUCTS = (torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__)
_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)

FUNCTIONS: dict[Callable[..., Any], Function] = {
    F.linear: Function(1, 2),
    F.bilinear: Function(2, 3),
    torch.addmm: Function(2, 0, axis=1),
    **{product: Function(1, None, axis=1) for product in _PRODUCTS},
    **{conv: Function(1, 2, places=count) for count, conv in enumerate(_CONVOLUTIONS, 1)},
    **{conv: Function(1, 2, axis=1, places=count) for count, conv in enumerate(_TRANSPOSED, 1)},
}


@dataclass(frozen=True)
class Layer:
    """One contraction of a network: the names of its weight and its bias, and where the channels
    lie."""

    weight: str
    bias: str | None
    axis: int
    places: int

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The weight of a layer whose outputs are so many times as large."""
        if self.axis == 0:
            return weight * scale.view(-1, *[1] * (weight.ndim - 1))
        # transposed convolutions: (groups in, out of one group, ...)
        groups = len(scale) // weight.shape[1]
        split = weight.unflatten(0, (groups, -1))
        factors = scale.view(groups, 1, -1, *[1] * (weight.ndim - 2))
        return (split * factors).flatten(0, 1)


class Watch(TorchFunctionMode):
    """Sees every contraction while a network runs; ``seen`` is given each and returns the output to
    go on with.

    A correction goes into a weight only if its layer is the one use of it, and nothing behind
    undoes it::

        F.linear(x, W, b)                     a layer: W and b can be scaled
        F.linear(x, W / W.norm(), b)          used by norm: the layer's weight is computed
        F.linear(F.linear(x, W), W)           used more than once
        batch_norm(F.linear(x, W))            normalised by running statistics

    Args:
        model: the network.
        seen: ``seen(layer, output)``.

    Attributes:
        left: weight -> why it is none that a correction can go into.
    """

    def __init__(self, model: nn.Module, seen: Callable[[Layer, Tensor], Tensor]) -> None:
        super().__init__()
        self.left: dict[str, str] = {}
        tensors, first = entries(model)
        self._names = {id(tensor): first[name] for name, tensor in tensors.items()}
        self._seen = seen
        self._uses: Counter[str] = Counter()
        self._made: dict[int, tuple[ref[Tensor], str]] = {}  # outputs of layers, by their id

    def begin(self) -> None:
        """The next batch."""
        self._uses.clear()
        self._made.clear()

    def normalised(self, value: Tensor) -> None:
        """A value goes into a layer with running statistics, which undoes whatever a correction
        would do."""
        output, weight = self._made.get(id(value), (None, ""))
        if output is not None and output() is value:  # else it is gone, and another has its id
            self.left.setdefault(weight, "normalised by running statistics")

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, and see whether it contracts with a weight."""
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        ours = [tensor for tensor in tensors_in((args, kwargs)) if id(tensor) in self._names]
        computes = any(True for _ in tensors_in(out)) and not any(out is tensor for tensor in ours)
        if not ours or not computes:
            return out  # nothing of ours, or only asked for its shape, dtype, device
        layer = self._layer(function, args, kwargs, out)
        self._count(function, {self._names[id(tensor)] for tensor in ours}, layer)
        if layer is None:
            return out
        if layer.bias in self.left:
            self.left.setdefault(layer.weight, f"its bias is {self.left[layer.bias]}")
        out = self._seen(layer, out)
        self._made[id(out)] = ref(out), layer.weight
        return out

    def _count(
        self, function: Callable[..., Any], names: Iterable[str], layer: Layer | None
    ) -> None:
        """Tell what else than one layer uses a tensor."""
        for name in names:
            self._uses[name] += 1
            if self._uses[name] > 1:
                self.left.setdefault(name, "used more than once")
            elif layer is None:
                self.left.setdefault(name, f"used by {getattr(function, '__name__', function)}")

    def _layer(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Any,
    ) -> Layer | None:
        """The layer that a call is; ``None`` if it is none that a correction can go into."""
        place = FUNCTIONS.get(function)
        if place is None or not isinstance(out, Tensor) or not out.is_floating_point():
            return None
        if function is torch.addmm and kwargs:  # other factors of both summands
            return None
        weight = _argument(place.weight, "weight", args, kwargs)
        bias = _argument(place.bias, "bias", args, kwargs)
        if weight is None or id(weight) not in self._names or weight.ndim < 2:
            return None
        if place.bias is None and weight.ndim != 2:  # stacked matrices have no one axis of outputs
            return None
        if bias is not None and id(bias) not in self._names:  # computed
            return None
        bias_name = None if bias is None else self._names[id(bias)]
        return Layer(self._names[id(weight)], bias_name, place.axis, place.places)


def _argument(
    number: int | None, keyword: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """An argument in its place or by name; ``None`` where it isn't given or there is none."""
    if number is None:
        return None
    return args[number] if number < len(args) else kwargs.get(keyword)
