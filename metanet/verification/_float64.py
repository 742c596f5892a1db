"""Run a network in float64 although it asks for float32 on the way."""

from collections.abc import Iterable, Iterator
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
        positional = _widened(enumerate(args), written)
        by_name = _widened((kwargs or {}).items(), written)
        return func(*positional.values(), **by_name)


def _as_wide(old: torch.dtype, new: torch.dtype) -> torch.dtype:
    """Pairs of numbers read as complex ones, and these as pairs, are both wide already:
    ``x.view(torch.complex64)``."""
    is_wide = old in _WIDE.values()
    if is_wide and old.is_complex != new.is_complex:
        return _WIDE.get(new, new)
    return new


def _written(func: Any) -> set[int | str]:
    """Positions and names of the arguments that an operation writes to: a converted copy would
    swallow the result."""
    if not func._schema.is_mutable:
        return set()
    written: set[int | str] = set()
    for position, argument in enumerate(func._schema.arguments):
        alias = argument.alias_info
        if alias is not None and alias.is_write:
            written.update((position, argument.name))
    return written


def _widened(arguments: Iterable[tuple[Any, Any]], but: set[int | str]) -> dict[Any, Any]:
    """Arguments by position or name, wide but for those that are written."""
    return {key: x if key in but else widen(x) for key, x in arguments}


def widen(x: Any) -> Any:
    """Tensors and dtypes in nested tuples, lists and dicts as float64 (complex128); all else as it
    is."""
    if isinstance(x, Tensor):
        return x.to(_WIDE[x.dtype]) if x.dtype in _WIDE else x
    if isinstance(x, torch.dtype):
        return _WIDE.get(x, x)
    if type(x) in (list, tuple):
        return type(x)([widen(each) for each in x])
    if type(x) is dict:
        return {key: widen(each) for key, each in x.items()}
    return x


def to_double(model: nn.Module) -> nn.Module:
    """The module itself, now in float64: parameters, all buffers, and tensors kept as plain
    attributes."""
    model.double()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_complex():  # which double() leaves as they are
            tensor.data = widen(tensor.data)
    of_all_modules = vars(nn.Module()).keys()
    for module in model.modules():
        own = {k: v for k, v in vars(module).items() if k not in of_all_modules}
        for name, value in own.items():
            if isinstance(value, (Tensor, list, tuple, dict)):
                vars(module)[name] = widen(value)
    return model
