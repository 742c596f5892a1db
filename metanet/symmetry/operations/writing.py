"""Writes by number: items of a tensor are replaced by, or added to, those of another."""

from typing import Any

import torch

from .._charged import Axes, Charged, ChargedCall
from .._charges import Charges
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axis, rule
from .lookup import Pins, along, index, looked_up


def _last_wins(integers: Operand, axes: tuple[Expr, ...]) -> Pins:
    """Integers that are written by overwriting: where two are equal, the one that comes later
    stays.

    Those that name items by rank (``topk``) are different along their axis.
    """
    why = "of several items that are written to one place the last one stays"
    return tuple((e, why) for e in axes) if integers.label is None else ()


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(
    call: Call, x: Operand, dim: int, integers: Operand, source: Any, *_: Any, **__: Any
) -> Semantics:
    """The inverse of ``gather``: items of one axis are written at the places that the integers
    name."""
    dim = normal_axis(dim, len(x))
    others = [a for a in range(len(x)) if a != dim]
    equal, pins = along(x, integers, others)
    e, p = looked_up(x[dim], integers)
    equal, pins = equal + e, pins + p
    if isinstance(source, Operand) and source.shape:
        e, p = along(source, integers, range(len(source)))
        equal, pins = equal + e, pins + p
        if call.name == "aten.scatter":
            pins += _last_wins(integers, (integers[dim],))
    return Semantics(
        outputs=(x.axes,), equal=equal, pins=pins + call.as_numbers(x, source), labels=(None,)
    )


@rule("aten.index_add", "aten.index_copy", "aten.index_reduce", "aten.index_fill")
def index_add(
    call: Call, x: Operand, dim: int, integers: Operand, source: Any, *_: Any, **__: Any
) -> Semantics:
    """Slices of ``source`` are added to (written into) those slices of ``x`` that the integers
    name."""
    dim = normal_axis(dim, len(x))
    equal, pins = looked_up(x[dim], integers)
    if isinstance(source, Operand) and source.shape:
        equal += tuple((x[a], source[a]) for a in range(len(x)) if a != dim)
        if len(integers):
            equal += ((source[dim], integers[0]),)
        if call.name == "aten.index_copy":
            pins += _last_wins(integers, integers.axes)
    return Semantics(
        outputs=(x.axes,), equal=equal, pins=pins + call.as_numbers(x, source), labels=(None,)
    )


@law("aten.index_add")
def index_add_charges(
    call: ChargedCall, x: Charged, dim: int, integers: Charged, source: Charged, *_: Any, **__: Any
) -> list[Axes | None]:
    """Slices are added to those that the integers name."""
    dim = normal_axis(dim, len(x))
    call.pin(integers)
    out: list[Charges] = []
    for a in range(len(x)):
        if a == dim or not (x.nothing or source.nothing):
            call.balance.equal(x[a], source[a])
        if a == dim:
            call.balance.pin(x[a])
        out.append(() if a == dim else source[a] if x.nothing else x[a])
    return [tuple(out)]


@rule("aten.index_put", "aten._unsafe_index_put")
def index_put(
    call: Call,
    x: Operand,
    indices: list[Operand | None],
    values: Operand,
    accumulate: bool = False,
    *_: Any,
) -> Semantics:
    """``x[indices] = values``: what ``index`` reads is written."""
    read = index(Call(call.name, (_indexed_shape(x, indices, values),), call.leaves), x, indices)
    shape = _indexed_shape(x, indices, values)
    out = read.outputs[0]
    equal = list(read.equal)
    for back in range(1, min(len(values), len(shape)) + 1):
        if values.shape[-back] == shape[-back]:
            equal.append((out[-back], values[-back]))
    pins = (*read.pins, *call.as_numbers(x, values))
    if not accumulate and any(n > 1 for n in values.shape):
        pins += tuple(p for i in indices if i is not None for p in _last_wins(i, i.axes))
    return Semantics(outputs=(x.axes,), equal=tuple(equal), pins=pins, labels=(None,))


def _indexed_shape(x: Operand, indices: list[Operand | None], values: Operand) -> tuple[int, ...]:
    """The shape of ``x[indices]``; what a mask chooses is as long as the values say."""
    if any(i is not None and i.dtype == "bool" for i in indices):
        covered = sum(1 if i is None or i.dtype != "bool" else len(i) for i in indices)
        return (values.shape[0] if values.shape else 2, *x.shape[covered:])
    chosen = [i.shape for i in indices if i is not None]
    joint = torch.broadcast_shapes(*chosen)
    places = [a for a, i in enumerate(indices) if i is not None]
    rest = [n for a, n in enumerate(x.shape) if a not in places]
    lead = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    return (*rest[:lead], *joint, *rest[lead:])


@rule("aten.masked_scatter")
def masked_scatter(call: Call, x: Operand, mask: Operand, source: Operand) -> Semantics:
    """Items of ``source`` in turn replace those that the mask chooses; whole rows where the mask
    does not vary."""
    lead = len(x) - len(mask)
    equal = tuple(
        (x[a + lead], mask[a]) for a in range(len(mask)) if mask.shape[a] == x.shape[a + lead]
    )
    rows = mask.shape[-1] != x.shape[-1] or (
        bool(mask[-1]) and all(call.leaves.is_wild(a) for a in call.leaves.expand(mask[-1]))
    )
    why = "items are chosen by a mask"
    if rows and source.shape[-1:] == x.shape[-1:]:
        pins = [(e, why) for e in (*x.axes[:-1], *source.axes[:-1])]
        return Semantics(outputs=(x.axes,), equal=(*equal, (x[-1], source[-1])), pins=tuple(pins))
    return Semantics(
        outputs=(x.axes,), equal=equal, pins=tuple((e, why) for e in (*x.axes, *source.axes))
    )
