"""Writes through views, in functional form: how a tensor looks after a view of it was written."""

from collections.abc import Callable
from typing import Any

import torch

from ._trace import Ref

A = torch.ops.aten
Emission = tuple[Any, tuple[Any, ...]]  # an operation and its arguments


def put_back(name: str, shape: tuple[int, ...], args: tuple[Any, ...], position: int, written: Ref) -> Emission | None:
    """The operation that yields the whole from a view of it that was written.

    Args:
        name: of the operation that made the view, such as ``"aten.slice"``.
        shape: of the whole.
        args: of that operation; the first is the whole, as it was before.
        position: which of the operation's outputs the view is.
        written: the view's new value.

    Returns:
        The operation and its arguments; ``None`` for views that have no such form.
    """
    make = _PUT_BACK.get(name)
    return make(shape, args, position, written) if make is not None else None


def _slice(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.slice_scatter.default, (args[0], written, *args[1:])


def _select(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.select_scatter.default, (args[0], written, *args[1:])


def _unbind(shape: Any, args: Any, position: int, written: Ref) -> Emission:
    return A.select_scatter.default, (args[0], written, args[1] if len(args) > 1 else 0, position)


def _split(shape: Any, args: Any, position: int, written: Ref) -> Emission:
    dim = args[2] if len(args) > 2 else 0
    n = shape[dim]
    sizes = args[1] if isinstance(args[1], (list, tuple)) else [args[1]] * -(-n // args[1])
    start = sum(sizes[:position])
    return A.slice_scatter.default, (args[0], written, dim, start, min(n, start + sizes[position]))


def _reshape(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.reshape.default, (written, list(shape))


def _transpose(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.transpose.int, (written, *args[1:])


def _t(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.t.default, (written,)


def _permute(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    order = [d % len(shape) for d in args[1]]
    return A.permute.default, (written, sorted(range(len(order)), key=order.__getitem__))


def _alias(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.alias.default, (written,)


def _diagonal(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.diagonal_scatter.default, (args[0], written, *args[1:])


def _as_strided(shape: Any, args: Any, _: int, written: Ref) -> Emission:
    return A.as_strided_scatter.default, (args[0], written, *args[1:])


_PUT_BACK: dict[str, Callable[..., Emission]] = {
    "aten.slice": _slice,
    "aten.select": _select,
    "aten.unbind": _unbind,
    "aten.split": _split,
    "aten.split_with_sizes": _split,
    "aten.view": _reshape,
    "aten._reshape_alias": _reshape,
    "aten.unsqueeze": _reshape,
    "aten.squeeze": _reshape,
    "aten.transpose": _transpose,
    "aten.t": _t,
    "aten.permute": _permute,
    "aten.alias": _alias,
    "aten.detach": _alias,
    "aten.diagonal": _diagonal,
    "aten.as_strided": _as_strided,
}
