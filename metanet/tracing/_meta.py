"""Recording without weights: operations on the meta device, and real values for constants that need none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TraceError
from ._trace import Op, Ref, tensors_in

LIMIT = 2**24  # entries of a constant that is computed for real


def on_meta(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation concerns the meta device."""
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == "meta":
        return True
    return any(t.is_meta for t in tensors_in((args, kwargs)))


class Meta:
    """Runs operations some of whose tensors have no values."""

    def call(
        self, func: Any, args: Any, kwargs: dict[str, Any], op: Op, constants: Mapping[int, Tensor] | None, module: str
    ) -> tuple[Any, Any]:
        """The result on the meta device, and the real one if it depends on nothing but constants that are known.

        Args:
            op: the operation as recorded, whose arguments refer to the constants.
            constants: ``None`` where the operation depends on data.

        Raises:
            TraceError: the network asks for the value of a tensor that has none.
        """
        real = None
        if constants is not None:
            real = self.evaluate(func, op.args, op.kwargs, constants)
            if any(t.numel() > LIMIT for t in tensors_in(real)):
                real = None
        if func._schema.name in _VALUES:
            if real is None:
                raise TraceError(
                    f"{func._schema.name.replace('::', '.')} in {module or 'the network'} asks for the value of a "
                    "tensor that is on the meta device: materialise the model first, e.g. "
                    "model.to_empty(device='cpu'), or build it on the CPU"
                )
            return (real if not isinstance(real, (Tensor, tuple, list)) else _without_values(real)), real
        options = {k: "meta" if k == "device" and v is not None else v for k, v in kwargs.items()}
        return func(*_without_values(args), **{k: _without_values(v) for k, v in options.items()}), real

    def evaluate(self, func: Any, args: Any, kwargs: Mapping[str, Any], constants: Mapping[int, Tensor]) -> Any:
        """The operation on real values; what it writes is a copy."""
        mutable = func._schema.is_mutable

        def value(x: Any) -> Any:
            if isinstance(x, Ref):
                return constants[x.value].clone() if mutable else constants[x.value]
            return type(x)(map(value, x)) if isinstance(x, (list, tuple)) else x

        options = {k: "cpu" if k == "device" and v is not None else value(v) for k, v in kwargs.items()}
        return func(*map(value, args), **options)


# Operations whose result is a Python value, or whose shape depends on values.
_VALUES = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select",
    "aten::_unique2", "aten::unique_consecutive", "aten::unique_dim", "aten::bincount",
}  # fmt: skip


def _without_values(x: Any) -> Any:
    """Every tensor on the meta device; those that are there already stay the objects they are."""
    if isinstance(x, Tensor):
        return x if x.is_meta else x.to("meta")
    return type(x)(map(_without_values, x)) if type(x) in (list, tuple) else x
