"""Running operations on the meta device, and beside them for real where the numbers are known."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import TraceError
from ._schemas import Facts
from ._trace import tensors_in

LIMIT = 2**24
"""Entries of the largest shadow: more would cost memory, and constants of this size are hardly ever
looked at."""

Shadow = Callable[[Tensor], Tensor | None]
"""The values of a tensor, where they are known."""

_CPU, _META = torch.device("cpu"), torch.device("meta")
_INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
}
_REMEDY = (
    "materialise the model first, model.to_empty(device='cpu'), or build it outside torch.device('meta'); a "
    "smaller size of the same architecture will do"
)


def run(
    func: Any, about: Facts, args: Any, kwargs: Any, shadow: Shadow, known: bool, where: str
) -> tuple[Any, Any]:
    """Call a function some of whose tensors, or all, have no values.

    Args:
        shadow: asked only for tensors whose values are known, if all are, and for masks.
        known: all values that the function reads are; those of tensors that it writes too, or it
            writes them all.
        where: the module, for errors.

    Returns:
        What the function returns, on the meta device unless all was real, and the same with values
        (``None``: unknown).

    Raises:
        TraceError: Python needs a number, or a shape that depends on numbers, and they are not
            known; or the operation does not work on the meta device.
    """
    device = kwargs.get("device")
    real = not any(t.is_meta for t in tensors_in((args, kwargs)))
    if known and _runs_for_real(func, about, device, real):
        back: dict[int, Tensor] = {}
        out = func(*put(args, lambda t: _noted(back, shadow(t), t)), **put(kwargs, shadow))
        returned = put(out, lambda t: back.get(id(t), t))
        if real or about.writes or device is not None:
            return returned, out
        return put(out, to_meta), out
    out = _on_meta(func, args, kwargs, shadow, where)
    if not known or any(t.numel() > LIMIT for t in tensors_in(out)):
        return out, None
    if about.reads:
        settings = put(kwargs, shadow)
        if device is not None:
            settings["device"] = _CPU
        return out, func(*put(args, shadow), **settings)
    # zeros_like(x): only the shape and the dtype of its argument count
    settings = {**put(kwargs, to_meta), "device": _CPU}
    return out, func(*put(args, to_meta), **settings)


def _runs_for_real(func: Any, about: Facts, device: Any, real: bool) -> bool:
    """Whether a function whose numbers are known runs on them alone, and not on the meta device."""
    if about.writes:
        return True
    if device is not None:
        return torch.device(device).type != "meta"
    return real or _needs_numbers(func)


def _on_meta(func: Any, args: Any, kwargs: Any, shadow: Shadow, where: str) -> Any:
    if func in _INDEXING:
        # x[mask]: how many items depends on numbers; x[mask.nonzero()] is the same, and does not
        indices: list[Tensor | None] = []
        for index in args[1]:
            indices += _integers(index, shadow)
        args = (args[0], indices, *args[2:])
    back: dict[int, Tensor] = {}
    settings = put(kwargs, lambda t: _noted(back, to_meta(t), t))
    if settings.get("device") is not None:
        settings["device"] = _META
    try:
        out = func(*put(args, lambda t: _noted(back, to_meta(t), t)), **settings)
    except (NotImplementedError, RuntimeError) as e:
        if _needs_numbers(func):
            raise needs_numbers(str(func), where) from e
        if isinstance(e, NotImplementedError):
            raise TraceError(
                f"{func} in {where} does not run on the meta device: {_REMEDY} ({e})"
            ) from e
        raise
    return put(out, lambda t: back.get(id(t), t))


def needs_numbers(what: str, where: str) -> TraceError:
    """The error where Python needs a number that the meta device does not have."""
    return TraceError(
        f"{what} in {where} asks for the value of a tensor that is on the meta device: {_REMEDY}"
    )


def to_meta(t: Tensor) -> Tensor:
    """A tensor of the same shape, strides and dtype without values; the tensor itself if it is
    one."""
    if t.is_meta:
        return t
    if t.layout is not torch.strided:
        return t.to("meta")
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")


def put(x: Any, change: Callable[[Tensor], Any]) -> Any:
    """Nested arguments with every tensor changed."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, dict):
        return {k: put(v, change) for k, v in x.items()}
    if type(x) in (list, tuple):
        return type(x)([put(v, change) for v in x])
    return x


def _noted(back: dict[int, Tensor], changed: Tensor | None, t: Tensor) -> Tensor | None:
    back[id(changed)] = t
    return changed


def _needs_numbers(func: Any) -> bool:
    return (
        torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags
    )


def _integers(t: Tensor | None, shadow: Shadow) -> list[Tensor | None]:
    if t is None or t.dtype not in (torch.bool, torch.uint8):
        return [t]
    values = shadow(t)
    return [t] if values is None else list(values.nonzero().unbind(1))
