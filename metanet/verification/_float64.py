"""Run a network in float64 although it asks for float32 on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..tracing import facts

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


@contextmanager
def float64() -> Iterator[None]:
    """While active, tensors of half and single precision become float64 ones.

    Whether they are made or converted to.

    Networks call ``x.float()``, ``softmax(dtype=torch.float32)`` or autocast in between; each of
    these would cut a float64 computation down to seven digits. Sees the operations *below*
    autocast, so its casts are covered too. The default dtype is float64 meanwhile.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widen():
            yield
    finally:
        torch.set_default_dtype(before)


class _Widen(TorchDispatchMode):
    """Widens what goes into every ATen operation: dtype arguments, and tensors that were made
    outside."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if facts(func).reads_bits:  # no conversion
            return func(args[0], _as_wide(args[0].dtype, args[1]))
        written = _written(func)
        args = [a if i in written else widen(a) for i, a in enumerate(args)]
        kwargs = {k: v if k in written else widen(v) for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


def _as_wide(old: torch.dtype, new: torch.dtype) -> torch.dtype:
    """Pairs of numbers read as complex ones, and these as pairs, are both wide already:
    ``x.view(torch.complex64)``."""
    return (
        _WIDE.get(new, new) if old in _WIDE.values() and old.is_complex != new.is_complex else new
    )


def _written(func: Any) -> set[int | str]:
    """Positions and names of the arguments that an operation writes to: a converted copy would
    swallow the result."""
    if not func._schema.is_mutable:
        return set()
    arguments = enumerate(func._schema.arguments)
    return {
        key
        for i, a in arguments
        if a.alias_info is not None and a.alias_info.is_write
        for key in (i, a.name)
    }


def widen(x: Any) -> Any:
    """Tensors and dtypes in nested tuples, lists and dicts as float64 (complex128); all else as it
    is."""
    if isinstance(x, Tensor):
        return x.to(_WIDE[x.dtype]) if x.dtype in _WIDE else x
    if isinstance(x, torch.dtype):
        return _WIDE.get(x, x)
    if type(x) in (list, tuple):
        return type(x)([widen(each) for each in x])
    return {k: widen(v) for k, v in x.items()} if type(x) is dict else x


def to_double(model: nn.Module) -> nn.Module:
    """The module itself, now in float64: parameters, all buffers, and tensors kept as plain
    attributes."""
    model.double()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_complex():  # which double() leaves as they are
            tensor.data = widen(tensor.data)
    own = set(vars(nn.Module()))
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in own and isinstance(value, (Tensor, list, tuple, dict)):
                vars(module)[name] = widen(value)
    return model
