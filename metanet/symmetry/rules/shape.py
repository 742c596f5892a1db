"""Operations that only rearrange: views, permutations, slices."""

from math import prod
from typing import Any

from .._leaves import Expr
from .._semantics import Call, Follow, Operand, Regroup, Semantics, normal_axes, normal_axis, rule


@rule("aten.view", "aten._unsafe_view", "aten.reshape", "aten._reshape_alias")
def view(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """The same entries in row-major order: stretches of axes with equal products list the same items."""
    shape = call.shapes[0] or ()
    outputs: list[Expr] = []
    equal: list[tuple[Expr, Expr]] = []
    i = j = 0
    while i < len(x.shape) or j < len(shape):
        ins, outs = [], []
        while True:  # the shortest stretch with equal products on both sides
            m, n = prod(x.shape[k] for k in ins), prod(shape[k] for k in outs)
            if (ins or outs) and m == n:
                break
            if m <= n and i < len(x.shape):
                ins.append(i)
                i += 1
            else:
                outs.append(j)
                j += 1
        merged: Expr = sum((x[k] for k in ins), ())
        if len([k for k in outs if shape[k] > 1]) <= 1:  # joining needs no new leaves
            outputs += [merged if shape[k] > 1 else () for k in outs]
        else:
            fresh = [call.fresh(shape[k]) for k in outs]
            outputs += fresh
            equal.append((merged, sum(fresh, ())))
    return Semantics(outputs=(tuple(outputs),), equal=tuple(equal), flow=(Regroup(x),))


def _rearranged(x: Operand, axes: tuple[int | None, ...]) -> Semantics:
    return Semantics(outputs=(tuple(() if a is None else x[a] for a in axes),), flow=(Follow(x, axes),))


@rule("aten.permute")
def permute(call: Call, x: Operand, dims: list[int]) -> Semantics:
    return _rearranged(x, normal_axes(dims, len(x)) if len(x) else ())


@rule("aten.t", "aten.numpy_T")
def t(call: Call, x: Operand) -> Semantics:
    return _rearranged(x, tuple(reversed(range(len(x)))))


@rule("aten.transpose", "aten.swapaxes")
def transpose(call: Call, x: Operand, a: int, b: int) -> Semantics:
    order = list(range(len(x)))
    a, b = normal_axis(a, len(x)), normal_axis(b, len(x))
    order[a], order[b] = order[b], order[a]
    return _rearranged(x, tuple(order))


@rule("aten.unsqueeze")
def unsqueeze(call: Call, x: Operand, dim: int) -> Semantics:
    axes: list[int | None] = list(range(len(x)))
    axes.insert(normal_axis(dim, len(x) + 1), None)
    return _rearranged(x, tuple(axes))


@rule("aten.squeeze")
def squeeze(call: Call, x: Operand, dim: int | list[int] | None = None) -> Semantics:
    named = set(normal_axes(dim, len(x)))
    return _rearranged(x, tuple(a for a in range(len(x)) if a not in named or x.shape[a] != 1))


@rule("aten.alias", "aten.detach", "aten.lift_fresh", "aten.contiguous")
def alias(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    return _rearranged(x, tuple(range(len(x))))


@rule("aten.expand")
def expand(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """A repeated axis is the same everywhere along it: it imposes nothing."""
    shape = call.shapes[0] or ()
    lead = len(shape) - len(x)
    axes = tuple(i - lead if i >= lead and x.shape[i - lead] == n else None for i, n in enumerate(shape))
    outputs = tuple(call.fresh(n) if a is None else x[a] for a, n in zip(axes, shape, strict=True))
    return Semantics(outputs=(outputs,), flow=(Follow(x, axes),))


@rule("aten.select")
def select(call: Call, x: Operand, dim: int, at: int) -> Semantics:
    """Taking one item pins the axis it is taken from."""
    dim = normal_axis(dim, len(x))
    kept = tuple(a for a in range(len(x)) if a != dim)
    pins = ((x[dim], "one item is selected along it"),)
    return Semantics(outputs=(tuple(x[a] for a in kept),), pins=pins, flow=(Follow(x, kept),))


@rule("aten.slice")
def slice_(call: Call, x: Operand, dim: int = 0, *_: Any, **__: Any) -> Semantics:
    """A slice pins the axis it cuts; a full slice is the tensor itself."""
    dim, shape = normal_axis(dim, len(x)), call.shapes[0] or ()
    if shape[dim] == x.shape[dim]:
        return _rearranged(x, tuple(range(len(x))))
    cut = call.fresh(shape[dim])
    why = "a slice is cut out of it"
    outputs = tuple(cut if a == dim else x[a] for a in range(len(x)))
    axes = tuple(None if a == dim else a for a in range(len(x)))
    return Semantics(outputs=(outputs,), pins=((x[dim], why), (cut, why)), flow=(Follow(x, axes),))
