"""Look-ups by number, and integers that name the items of an axis.

``topk`` over experts yields integers with values in the axis of the experts: relabel the experts,
and the integers name others. They carry that axis as their *label*; looking up ``weights[ids]``
then moves the experts of the weights with those of the router, and pins nothing.
"""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._flow import Take
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, normal_axis, rule

Pins = tuple[tuple[Expr, str], ...]
Equal = tuple[tuple[Expr, Expr], ...]


def looked_up(axis: Expr, integers: Operand) -> tuple[Equal, Pins]:
    """Either the integers name the items of this axis, or its items are told apart by their
    numbers."""
    if integers.label is not None:
        return ((axis, integers.label),), ()
    return (), ((axis, "its items are looked up by number"),)


def along(x: Operand, other: Operand, axes: Any) -> tuple[Equal, Pins]:
    """Axes that both share; where one has more items only the first ones take part, so that they
    are told apart."""
    equal = tuple((x[a], other[a]) for a in axes if x.shape[a] == other.shape[a])
    why = "only its first items take part"
    pins = tuple((e, why) for a in axes if x.shape[a] != other.shape[a] for e in (x[a], other[a]))
    return equal, pins


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
    bags = call.fresh((call.shapes[0] or ())[0])
    pins = [
        (e, why)
        for e in (
            weight[0],
            *integers,
            *offsets,
            bags,
            *(weights.axes if weights is not None else ()),
        )
    ]
    others = (None,) * (len(call.shapes) - 1)
    return Semantics(
        outputs=((bags, weight[1]), *others),
        pins=(*pins, *call.as_numbers(integers)),
        labels=(None, *others),
    )


@rule("aten.index", "aten._unsafe_index")
def index(call: Call, x: Operand, indices: list[Operand | None]) -> Semantics:
    """Advanced indexing: the axes of the integers come for the indexed ones, in front unless all
    are adjacent."""
    given = [(a, i) for a, i in enumerate(indices) if i is not None]
    if any(i.dtype == "bool" for _, i in given):
        return _index_by_mask(call, x, indices)
    if len(given) == 1 and (run := _run(given[0][1], x.shape[given[0][0]])) is not None:
        return Semantics(outputs=(Take(x, given[0][0], *run),), moves=True)
    rank = max(len(i) for _, i in given)
    equal, pins, looked = [], [], []
    for a, integers in given:
        e, p = looked_up(x[a], integers)
        equal += e
        pins += p
        if e:
            looked.append(integers)
    shape = call.shapes[0] or ()
    places = [a for a, _ in given]
    adjacent = places == list(range(places[0], places[-1] + 1))
    lead = places[0] if adjacent else 0
    joint: list[Expr] = []
    for back in range(rank, 0, -1):
        size = shape[lead + rank - back]
        full = [i[-back] for _, i in given if len(i) >= back and i.shape[-back] == size]
        equal += [(full[0], other) for other in full[1:]]
        joint.append(full[0] if full else call.wild(size))
    rest = [x[a] for a in range(len(x)) if a not in places]
    out = (*rest[:lead], *joint, *rest[lead:])
    stands = tuple((i.axes, i) for i in looked)
    return Semantics(
        outputs=(out,), equal=tuple(equal), pins=tuple(pins), stands=stands, labels=(x.label,)
    )


def _run(integers: Operand, n: int) -> tuple[int, int] | None:
    """First and last + 1 of constant integers that are consecutive: the look-up is a slice."""
    if (
        integers.constant is None
        or len(integers) != 1
        or not integers.shape[0]
        or integers.shape[0] > n
    ):
        return None
    numbers = [int(i) % n for i in integers.constant.tolist()]
    first, last = numbers[0], numbers[-1] + 1
    return (first, last) if numbers == list(range(first, last)) else None


def _index_by_mask(call: Call, x: Operand, indices: list[Operand | None]) -> Semantics:
    """How many items a mask chooses depends on its values: the axes it covers are fixed, those
    behind it stay."""
    covered, place = set(), 0
    pins: list[tuple[Expr, str]] = []
    for i in indices:
        width = 1 if i is None or i.dtype != "bool" else len(i)
        if i is not None:
            covered.update(range(place, place + width))
            pins += [(e, "items are chosen by a mask") for e in i.axes]
        place += width
    pins += [(x[a], "items are chosen by a mask") for a in covered]
    rest = [x[a] for a in range(len(x)) if a not in covered]
    shape, first = call.shapes[0] or (), min(covered)
    fresh = [call.fresh(n) for n in shape[first : first + len(shape) - len(rest)]]
    pins += [(e, "items are chosen by a mask") for e in fresh]
    return Semantics(
        outputs=((*rest[:first], *fresh, *rest[first:]),), pins=tuple(pins), labels=(x.label,)
    )


@law("aten.index", "aten._unsafe_index")
def index_charges(
    call: ChargedCall, x: Charged, indices: list[Charged | None]
) -> list[Axes | None]:
    """A stretch if the integers are consecutive constants, else entries of the other axes."""
    call.pin(*indices)
    given = [a for a, i in enumerate(indices) if i is not None]
    return [_looked_up_charges(call, x, given)]


@rule("aten.index_select")
def index_select(call: Call, x: Operand, dim: int, integers: Operand) -> Semantics:
    """Items of one axis by number."""
    dim = normal_axis(dim, len(x))
    if (run := _run(integers, x.shape[dim])) is not None:
        return Semantics(outputs=(Take(x, dim, *run),), moves=True)
    equal, pins = looked_up(x[dim], integers)
    chosen = integers[0] if len(integers) else ()
    out = (*x.axes[:dim], chosen, *x.axes[dim + 1 :])
    stands = ((integers.axes, integers),) if equal else ()
    return Semantics(outputs=(out,), equal=equal, pins=pins, stands=stands, labels=(x.label,))


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
    equal, pins = along(x, integers, [a for a in range(len(x)) if a != dim])
    e, p = looked_up(x[dim], integers)
    return Semantics(outputs=(integers.axes,), equal=equal + e, pins=pins + p, labels=(x.label,))


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
    pins = tuple((e, "items are chosen by their values") for o in (x, *others) for e in o.axes)
    return Semantics(outputs=(None,), pins=pins)
