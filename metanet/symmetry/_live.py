"""What operations mean for the flow of neurons while a network runs: for dispatch modes that watch it.

A rule needs no recording, only shapes. So whoever watches a pass asks the same rules what was just
contracted with which weight::

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        seen = seen_call(func, args, kwargs or {}, out)
        for flow in seen.flow:
            if isinstance(flow, Contraction):
                data, weight = seen.tensor(flow.data), seen.tensor(flow.weight)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..tracing import facts
from ._flow import Flow
from ._leaves import Leaves
from ._operand import Operand
from ._operation import Call, find_rule


@dataclass(frozen=True, eq=False)
class SeenCall:
    """A call of an operation on real tensors.

    Attributes:
        name: without overload, e.g. ``"aten.addmm"``.
        flow: what it means for the flow of neurons; empty if nothing is known of it.
        tensors: that it was called with; an operand's ``value`` counts them.
    """

    name: str
    flow: tuple[Flow, ...]
    tensors: tuple[Tensor, ...]

    def tensor(self, operand: Operand) -> Tensor:
        """The tensor that an operand of the flow stands for."""
        return self.tensors[operand.value]


def seen_call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> SeenCall:
    """What a call means that a :class:`~torch.utils._python_dispatch.TorchDispatchMode` has seen.

    Args:
        function: the overload, as the mode is given it.
        args, kwargs: as called.
        out: what it returned.
    """
    name = facts(function).name
    rule = find_rule(name, function)
    if rule is None:
        return SeenCall(name, (), ())
    leaves = Leaves()
    tensors: list[Tensor] = []

    def operand(x: Any) -> Any:
        if isinstance(x, Tensor):
            tensors.append(x)
            shape = tuple(x.shape)
            dtype = str(x.dtype).removeprefix("torch.")
            return Operand(len(tensors) - 1, shape, tuple(map(leaves.new, shape)), dtype)
        return [operand(y) for y in x] if isinstance(x, (list, tuple)) else x

    outputs = out if isinstance(out, (list, tuple)) else (out,)
    shapes = tuple(tuple(x.shape) if isinstance(x, Tensor) else None for x in outputs)
    operands = [operand(x) for x in args]
    options = {key: operand(x) for key, x in kwargs.items()}
    semantics = rule(Call(name, shapes, leaves), *operands, **options)
    return SeenCall(name, semantics.flow if semantics is not None else (), tuple(tensors))
