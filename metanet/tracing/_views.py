"""Views: which part of which tensor a tensor looks into, and what the whole becomes when that part
is written."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._trace import Ref, Value, references

aten = torch.ops.aten

Emit = Callable[..., Ref]
"""``emit(call, args, like, kwargs)`` records an operation whose result is like a value, and refers
to it."""


@dataclass(frozen=True, slots=True)
class View:
    """How a tensor follows from the one that it looks into: ``call(*args, **kwargs)``, the one
    reference in it stands for the latter."""

    call: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def of(self, parent: Ref | Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the call that looks into ``parent`` instead."""

        def put(x: Any) -> Any:
            if isinstance(x, Ref):
                return parent
            return type(x)(map(put, x)) if type(x) in (list, tuple) else x

        return put(self.args), {k: put(v) for k, v in self.kwargs.items()}


def alias(parent: Ref) -> View:
    """The same entries under the same indices."""
    return View(aten.alias.default, (parent,), {})


def window(root: Ref, tensor: Tensor) -> View:
    """Any view at all of a tensor that lies in memory in the order of its entries, from the
    start."""
    return View(
        aten.as_strided.default,
        (root, list(tensor.shape), list(tensor.stride()), tensor.storage_offset()),
        {},
    )


def view_of(
    call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], index: int | None, shape: Any
) -> View | None:
    """The view that one output of a call is.

    Args:
        index: which output, for calls that return several (split, unbind): these become a slice or
            a selection.
        shape: of the tensor looked into.

    Returns:
        ``None`` if the call does not look into its first argument alone.
    """
    if len(list(references((args, kwargs)))) != 1 or not args or not isinstance(args[0], Ref):
        return None
    if index is None:
        return View(call, args, kwargs)
    given = _arguments(View(call, args, kwargs))
    dim = given.get("dim", 0)
    if call is aten.unbind.int:
        return View(aten.select.int, (args[0], dim, index), {})
    if call in (aten.split.Tensor, aten.unsafe_split.Tensor):
        sizes = [given["split_size"]] * (index + 1)
    elif call in (aten.split_with_sizes.default, aten.unsafe_split_with_sizes.default):
        sizes = given["split_sizes"]
    else:
        return None
    start = sum(sizes[:index])
    return View(aten.slice.Tensor, (args[0], dim, start, min(start + sizes[index], shape[dim])), {})


def rebuild(
    view: View, parent: Ref, child: Ref, whole: Value, part: Value, emit: Emit
) -> Ref | None:
    """What ``parent`` is after what ``view`` shows of it became ``child``.

    Returns:
        ``None`` if no function does this.
    """
    call, given = view.call, _arguments(view)
    args: tuple[Any, ...]
    if call is aten.expand.default:
        return _unexpand(child, whole, part, emit)
    if call in _SCATTERS:
        return emit(_SCATTERS[call], (parent, child, *view.args[1:]), whole, view.kwargs)
    if call in _RESHAPES:
        call, args = aten.view.default, (child, list(whole.shape))
    elif call is aten.transpose.int:
        args = (child, given["dim0"], given["dim1"])
    elif call is aten.permute.default:
        dims = [d % len(whole.shape) for d in given["dims"]]
        args = (child, sorted(range(len(dims)), key=dims.__getitem__))
    elif call is aten.view.dtype:
        args = (child, getattr(torch, whole.dtype))
    elif call in _INVERSES:
        call, args = _INVERSES[call], (child,)
    else:
        return None
    return emit(call, args, whole)


def invertible(view: View | None) -> bool:
    """Whether :func:`rebuild` knows the call."""
    return view is not None and any(
        view.call in undoable for undoable in (_SCATTERS, _RESHAPES, _INVERSES, _SPECIAL)
    )


_SCATTERS = {
    aten.as_strided.default: aten.as_strided_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
    aten.select.int: aten.select_scatter.default,
    aten.slice.Tensor: aten.slice_scatter.default,
}
_RESHAPES = {
    aten._reshape_alias.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.view.default,
}
_INVERSES = {
    aten._conj.default: aten._conj.default,
    aten._neg_view.default: aten._neg_view.default,
    aten.t.default: aten.t.default,
    aten.view_as_complex.default: aten.view_as_real.default,
    aten.view_as_real.default: aten.view_as_complex.default,
}
_SPECIAL = {
    aten.alias.default,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.view.dtype,
}


def _unexpand(child: Ref, whole: Value, part: Value, emit: Emit) -> Ref:
    """Places along an expanded axis are one place: the first tells what was written to all."""
    # x (3, 1) as (2, 3, 4): x is the written tensor's [:1, :, :1]
    shape = list(part.shape)
    lead = len(part.shape) - len(whole.shape)
    before = (1,) * lead + whole.shape
    for axis, size in enumerate(part.shape):
        if size != 1 and before[axis] == 1:
            shape[axis] = 1
            first = replace(part, shape=tuple(shape))
            child = emit(aten.slice.Tensor, (child, axis, 0, 1), first)
    return emit(aten.view.default, (child, list(whole.shape)), whole)


def _arguments(view: View) -> dict[str, Any]:
    names = [a.name for a in view.call._schema.arguments]
    defaults = {
        a.name: a.default_value for a in view.call._schema.arguments if a.has_default_value()
    }
    return {**defaults, **dict(zip(names, view.args, strict=False)), **view.kwargs}
