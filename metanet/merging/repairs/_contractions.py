"""Where a network contracts with its weights, whatever modules it is made of, and how a correction
goes into them.

The functions that are called with a parameter tell, not the types of modules: so that layers of
one's own count, and weights that are standardised, normalised or shared before they are used are
seen not to be what their layer uses.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


FUNCTIONS: dict[Callable, Function] = {
    F.linear: Function(1, 2), F.bilinear: Function(2, 3), torch.addmm: Function(2, 0, 1),
    **{f: Function(1, None, 1) for f in (torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__)},
    **{f: Function(1, 2, 0, n) for n, f in enumerate((F.conv1d, F.conv2d, F.conv3d), 1)},
    **{f: Function(1, 2, 1, n) for n, f in enumerate((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), 1)},
}  # fmt: skip


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
        # transposed convolutions: (in, out of one group, ...)
        groups = len(scale) // weight.shape[1]
        split = weight.unflatten(0, (groups, -1)) * scale.view(
            groups, 1, -1, *[1] * (weight.ndim - 2)
        )
        return split.flatten(0, 1)


class Watch(TorchFunctionMode):
    """Sees every contraction while a network runs; ``seen`` is given each and returns the output to
    go on with.

    Args:
        model: the network.
        seen: ``seen(layer, output)``.

    Attributes:
        left: weight -> why it is none that a correction can go into.
    """

    def __init__(self, model: nn.Module, seen: Callable[[Layer, Tensor], Tensor]) -> None:
        super().__init__()
        tensors, first = entries(model)
        self._names = {id(t): first[n] for n, t in tensors.items()}
        self._seen = seen
        self._uses: Counter[str] = Counter()
        self.left: dict[str, str] = {}

    def begin(self) -> None:
        """The next batch."""
        self._uses.clear()

    def normalised(self, value: Tensor) -> None:
        """A value goes into a layer with running statistics, which undoes whatever a correction
        would do."""
        if (name := getattr(value, "_made_by", None)) is not None:
            self.left.setdefault(name, "normalised by running statistics")

    def __torch_function__(
        self,
        function: Callable,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, and see whether it contracts with a weight."""
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        given = [t for t in tensors_in((args, kwargs)) if id(t) in self._names]
        if not given or not any(True for _ in tensors_in(out)) or any(out is t for t in given):
            return out  # nothing of ours, or only asked for its shape, dtype, device
        layer = self._layer(function, args, kwargs, out)
        for name in {self._names[id(t)] for t in given}:
            self._uses[name] += 1
            if self._uses[name] > 1:
                self.left.setdefault(name, "used more than once")
            elif layer is None:
                self.left.setdefault(name, f"used by {getattr(function, '__name__', function)}")
        if layer is None:
            return out
        if layer.bias in self.left:
            self.left.setdefault(layer.weight, f"its bias is {self.left[layer.bias]}")
        out = self._seen(layer, out)
        out._made_by = layer.weight
        return out

    def _layer(
        self, function: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
    ) -> Layer | None:
        role = FUNCTIONS.get(function)
        if role is None or not isinstance(out, Tensor) or not out.is_floating_point():
            return None
        if function is torch.addmm and kwargs:  # other factors of both summands
            return None
        weight, bias = (
            _given(role.weight, "weight", args, kwargs),
            _given(role.bias, "bias", args, kwargs),
        )
        known = weight is not None and id(weight) in self._names and weight.ndim > 1
        if not known or (role.bias is None and weight.ndim != 2):
            return None
        if bias is not None and id(bias) not in self._names:  # computed
            return None
        return Layer(
            self._names[id(weight)], None if bias is None else self._names[id(bias)], role.axis, role.places
        )  # fmt: skip


def _given(
    number: int | None, keyword: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    if number is None:
        return None
    return args[number] if number < len(args) else kwargs.get(keyword)
