"""Writes by number: items of a tensor are replaced by, or added to, those of another."""

from typing import Any

import torch

from .._charged import Axes, Charged, ChargedCall
from .._charges import Charges
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Pins, Semantics, law, normal_axis, pinned, rule
from .lookup import along, around, index, looked_up, width


def _last_wins(integers: Operand, axes: tuple[Expr, ...]) -> Pins:
    """Integers that are written by overwriting: where two are equal, the one that comes later
    stays.

    Those that name items by rank (``topk``) are different along their axis.
    """
    if integers.label is not None:
        return ()
    return pinned(axes, "of several items that are written to one place the last one stays")


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(
    call: Call, x: Operand, dim: int, integers: Operand, source: Any, *_: Any, **__: Any
) -> Semantics:
    """The inverse of ``gather``: items of one axis are written at the places that the integers
    name."""
    dim = normal_axis(dim, len(x))
    others = [a for a in range(len(x)) if a != dim]
    statements = [along(x, integers, others), looked_up(x[dim], integers)]
    overwritten: Pins = ()
    if isinstance(source, Operand) and source.shape:
        statements.append(along(source, integers, range(len(source))))
        if call.name == "aten.scatter":
            overwritten = _last_wins(integers, (integers[dim],))
    equal, pins = (sum(parts, ()) for parts in zip(*statements, strict=True))
    return Semantics(
        outputs=(x.axes,),
        equal=equal,
        pins=pins + overwritten + call.as_numbers(x, source),
        labels=(None,),
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
    call.balance.equal(x[dim], source[dim])
    call.balance.pin(x[dim])
    out: list[Charges] = list(source.axes if x.nothing else x.axes)
    out[dim] = ()
    if not (x.nothing or source.nothing):
        for a in range(len(x)):
            call.balance.equal(x[a], source[a])
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
    integers = [i for i in indices if i is not None]
    shape = _indexed_shape(x, indices, values)
    read = index(Call(call.name, (shape,), call.leaves), x, indices)
    out = read.axes(0) or ()
    equal = list(read.equal)
    for back in range(1, min(len(values), len(shape)) + 1):
        if values.full_size(back, shape[-back]):
            equal.append((out[-back], values[-back]))
    pins = (*read.pins, *call.as_numbers(x, values))
    if not accumulate and max(values.shape, default=1) > 1:
        pins = sum((_last_wins(i, i.axes) for i in integers), pins)
    return Semantics(outputs=(x.axes,), equal=tuple(equal), pins=pins, labels=(None,))


def _indexed_shape(x: Operand, indices: list[Operand | None], values: Operand) -> tuple[int, ...]:
    """The shape of ``x[indices]``; what a mask chooses is as long as the values say."""
    integers = [i for i in indices if i is not None]
    if any(i.dtype == "bool" for i in integers):
        covered = sum(map(width, indices))
        return (values.shape[0] if values.shape else 2, *x.shape[covered:])
    joint = torch.broadcast_shapes(*(i.shape for i in integers))
    lead, behind = around(x.shape, indices)
    return (*lead, *joint, *behind)


@rule("aten.masked_scatter")
def masked_scatter(call: Call, x: Operand, mask: Operand, source: Operand) -> Semantics:
    """Items of ``source`` in turn replace those that the mask chooses; whole rows where the mask
    does not vary."""
    shared = [a for a in range(-len(mask), 0) if mask.shape[a] == x.shape[a]]
    equal = tuple((x[a], mask[a]) for a in shared)
    why = "items are chosen by a mask"
    if _is_uniform(call, x, mask) and source.shape[-1:] == x.shape[-1:]:
        pins = pinned((*x.axes[:-1], *source.axes[:-1]), why)
        return Semantics(outputs=(x.axes,), equal=(*equal, (x[-1], source[-1])), pins=pins)
    return Semantics(outputs=(x.axes,), equal=equal, pins=pinned((*x, *source), why))


def _is_uniform(call: Call, x: Operand, mask: Operand) -> bool:
    """Whether a mask does not vary along its last axis."""
    if mask.shape[-1] != x.shape[-1]:
        return True
    atoms = call.leaves.expand(mask[-1])
    return bool(mask[-1]) and all(map(call.leaves.is_wild, atoms))
