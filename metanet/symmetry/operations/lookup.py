"""Look-ups by number, and integers that name the items of an axis.

``topk`` over experts yields integers with values in the axis of the experts: relabel the experts,
and the integers name others. They carry that axis as their *label*; looking up ``weights[ids]``
then moves the experts of the weights with those of the router, and pins nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._flow import Flow, LookUp, Rearrange, Take
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Equal, Pins, Semantics, law, normal_axis, pinned, rule
from .pointwise import broadcast


def looked_up(axis: Expr, integers: Operand) -> tuple[Equal, Pins]:
    """Either the integers name the items of this axis, or its items are told apart by their
    numbers."""
    if integers.label is not None:
        return ((axis, integers.label),), ()
    return (), ((axis, "its items are looked up by number"),)


def along(x: Operand, other: Operand, axes: Iterable[int]) -> tuple[Equal, Pins]:
    """Axes that both share; where one has more items only the first ones take part, so that they
    are told apart."""
    equal: list[tuple[Expr, Expr]] = []
    cut: list[Expr] = []
    for a in axes:
        if x.shape[a] == other.shape[a]:
            equal.append((x[a], other[a]))
        else:
            cut += (x[a], other[a])
    return tuple(equal), pinned(cut, "only its first items take part")


def width(index: Operand | None) -> int:
    """How many axes one entry of an index covers: a mask all that it has, everything else one."""
    return len(index) if index is not None and index.dtype == "bool" else 1


def around(items: Sequence[Any], indices: Sequence[Operand | None]) -> tuple[list[Any], list[Any]]:
    """Of the items of all axes those that stand before and behind what ``x[indices]`` has in place
    of the indexed ones: there if they are adjacent, else in front.

    ``x[:, i, j]`` is ``(x[0], joint, x[3])``, ``x[i, :, j]`` is ``(joint, x[1], x[3])``.
    """
    places = [a for a, i in enumerate(indices) if i is not None]
    remaining = [item for a, item in enumerate(items) if a not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    lead = places[0] if adjacent else 0
    return remaining[:lead], remaining[lead:]


@rule("aten.embedding")
def embedding(call: Call, weight: Operand, integers: Operand, *_: Any, **__: Any) -> Semantics:
    """Rows of a table.

    Shapes:
        - **weight** ``(rows, dim)``, **integers** ``(...)`` -> ``(..., dim)``
    """
    equal, pins = looked_up(weight[0], integers)
    stands = ((integers.axes, integers),) if equal else ()
    return Semantics(
        outputs=((*integers.axes, weight[1]),),
        equal=equal,
        pins=pins,
        stands=stands,
        labels=(None,),
        flow=(LookUp(weight, (integers,), (0,), 0, embedding=True),),
    )


@law("aten.embedding")
def embedding_charges(
    call: ChargedCall, weight: Charged, integers: Charged, *_: Any, **__: Any
) -> list[Axes | None]:
    """Rows of a table."""
    call.pin(integers)
    call.balance.pin(weight[0])
    return [(*((),) * len(integers), weight[1])]


@rule("aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(
    call: Call,
    weight: Operand,
    integers: Operand,
    offsets: Operand,
    _: bool = False,
    mode: int = 0,
    sparse: bool = False,
    weights: Operand | None = None,
    *__: Any,
    **___: Any,
) -> Semantics:
    """Rows of a table, summed (or averaged, or the largest taken) by bag.

    Shapes:
        - **weight** ``(rows, dim)``, **integers** ``(n)``, **offsets** ``(bags)`` -> ``(bags,
          dim)``
    """
    why = "rows are told apart by their numbers and bags by their places"
    bags = call.fresh(call.shape[0])
    weighted = () if weights is None else weights.axes
    pins = pinned((weight[0], *integers, *offsets, bags, *weighted), why)
    others = (None,) * (len(call.shapes) - 1)
    return Semantics(
        outputs=((bags, weight[1]), *others),
        pins=(*pins, *call.as_numbers(integers)),
        labels=(None, *others),
        flow=(LookUp(weight, (integers,), (0,), 0, embedding=True),),
    )


@rule("aten.index", "aten._unsafe_index")
def index(call: Call, x: Operand, indices: list[Operand | None]) -> Semantics:
    """Advanced indexing: the axes of the integers come for the indexed ones, in front unless all
    are adjacent."""
    indexed = [(a, i) for a, i in enumerate(indices) if i is not None]
    integers = [i for _, i in indexed]
    if any(i.dtype == "bool" for i in integers):
        return _index_by_mask(call, x, indices)
    lead = len(around(x.axes, indices)[0])
    flow = (LookUp(x, tuple(integers), tuple(a for a, _ in indexed), lead), Rearrange(x, "copy"))
    first, numbers = indexed[0]
    run = _run(numbers, x.shape[first]) if len(indexed) == 1 else None
    if run is not None:
        return Semantics(outputs=(Take(x, first, *run),), moves=True, flow=flow)
    statements = [looked_up(x[a], i) for a, i in indexed]
    equal, pins = (sum(parts, ()) for parts in zip(*statements, strict=True))
    before, behind = around(x.axes, indices)
    rank = max(map(len, integers))
    joint, alike = broadcast(call, integers, call.shape[len(before) : len(before) + rank])
    return Semantics(
        outputs=((*before, *joint, *behind),),
        equal=equal + alike,
        pins=pins,
        stands=tuple((i.axes, i) for i in integers if i.label is not None),
        labels=(x.label,),
        flow=flow,
    )


def _run(integers: Operand, n: int) -> tuple[int, int] | None:
    """First and last + 1 of constant integers that are consecutive: the look-up is a slice."""
    constant = integers.constant
    if constant is None or len(integers) != 1 or not 0 < integers.shape[0] <= n:
        return None
    numbers = [int(i) % n for i in constant.tolist()]
    first, last = numbers[0], numbers[-1] + 1
    return (first, last) if numbers == list(range(first, last)) else None


def _index_by_mask(call: Call, x: Operand, indices: list[Operand | None]) -> Semantics:
    """How many items a mask chooses depends on its values: the axes it covers are fixed, those
    behind it stay."""
    covered: list[int] = []
    touched: list[Expr] = []
    place = 0
    for i in indices:
        if i is not None:
            covered += range(place, place + width(i))
            touched += i
        place += width(i)
    before = x.axes[: covered[0]]
    behind = [x[a] for a in range(covered[0], len(x)) if a not in covered]
    sizes = call.shape[len(before) : len(call.shape) - len(behind)]
    fresh = [call.fresh(n) for n in sizes]
    touched += [*(x[a] for a in covered), *fresh]
    return Semantics(
        outputs=((*before, *fresh, *behind),),
        pins=pinned(touched, "items are chosen by a mask"),
        labels=(x.label,),
        flow=(Rearrange(x, "copy"),),
    )


@law("aten.index", "aten._unsafe_index")
def index_charges(
    call: ChargedCall, x: Charged, indices: list[Charged | None]
) -> list[Axes | None]:
    """A stretch if the integers are consecutive constants, else entries of the other axes."""
    call.pin(*indices)
    indexed = [a for a, i in enumerate(indices) if i is not None]
    return [_looked_up_charges(call, x, indexed)]


@rule("aten.index_select")
def index_select(call: Call, x: Operand, dim: int, integers: Operand) -> Semantics:
    """Items of one axis by number."""
    dim = normal_axis(dim, len(x))
    flow = (LookUp(x, (integers,), (dim,), dim), Rearrange(x, "copy"))
    if (run := _run(integers, x.shape[dim])) is not None:
        return Semantics(outputs=(Take(x, dim, *run),), moves=True, flow=flow)
    equal, pins = looked_up(x[dim], integers)
    selected = integers[0] if len(integers) else ()
    out = x.replaced(dim, selected)
    stands = ((integers.axes, integers),) if equal else ()
    return Semantics(
        outputs=(out,), equal=equal, pins=pins, stands=stands, labels=(x.label,), flow=flow
    )


@law("aten.index_select")
def index_select_charges(
    call: ChargedCall, x: Charged, dim: int, integers: Charged
) -> list[Axes | None]:
    """Items of one axis by number."""
    return [_looked_up_charges(call, x, [normal_axis(dim, len(x))])]


def _looked_up_charges(call: ChargedCall, x: Charged, gone: list[int]) -> Axes:
    take = call.said.takes[0] if call.said.takes else None
    return call.by_leaf(x, gone) if take is None else call.taken(x, take, 0)


@rule("aten.gather", "aten.take_along_dim")
def gather(call: Call, x: Operand, dim: int, integers: Operand, **_: Any) -> Semantics:
    """One item for each of the integers, along one axis."""
    dim = normal_axis(dim, len(x))
    others = [a for a in range(len(x)) if a != dim]
    equal, pins = along(x, integers, others)
    along_dim, fixed = looked_up(x[dim], integers)
    flow: tuple[Flow, ...] = (Rearrange(x, "copy"),)
    if all(x.shape[a] == integers.shape[a] for a in others):
        flow = (LookUp(x, (integers,), (dim,), dim), *flow)
    return Semantics(
        outputs=(integers.axes,),
        equal=equal + along_dim,
        pins=pins + fixed,
        labels=(x.label,),
        flow=flow,
    )


@law("aten.gather", "aten.take_along_dim")
def gather_charges(
    call: ChargedCall, x: Charged, dim: int, integers: Charged, **_: Any
) -> list[Axes | None]:
    """One item for each of the integers."""
    call.pin(integers)
    return [call.by_leaf(x, (normal_axis(dim, len(x)),))]


@rule("aten.nonzero", "aten.masked_select", "aten.repeat_interleave")
def chosen(call: Call, x: Operand, *others: Operand) -> Semantics:
    """Which items come out depends on the values."""
    axes = [axis for operand in (x, *others) for axis in operand]
    return Semantics(outputs=(None,), pins=pinned(axes, "items are chosen by their values"))
