"""Look-ups, selections by value, and integers that name the items of an axis.

``topk`` over experts yields integers with values in the axis of the experts: relabel the experts,
and the integers name others. They carry that axis as their *label*; looking up ``weights[ids]``
then moves the experts of the weights with those of the router, and pins nothing.
"""

from typing import Any

from .._leaves import Expr
from .._semantics import Call, Operand, Semantics, Take, normal_axis, rule

Pins = tuple[tuple[Expr, str], ...]
Equal = tuple[tuple[Expr, Expr], ...]


def _looked_up(axis: Expr, integers: Operand) -> tuple[Equal, Pins]:
    """Either the integers name the items of this axis, or its items are told apart by their
    numbers."""
    if integers.label is not None:
        return ((axis, integers.label),), ()
    return (), ((axis, "its items are looked up by number"),)


def _last_wins(integers: Operand, axes: tuple[Expr, ...]) -> Pins:
    """Integers that are written by overwriting: where two are equal, the one that comes later
    stays.

    Those that name items by rank (``topk``) are different along their axis.
    """
    why = "of several items that are written to one place the last one stays"
    return tuple((e, why) for e in axes) if integers.label is None else ()


def _along(x: Operand, other: Operand, axes: Any) -> tuple[Equal, Pins]:
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
    equal, pins = _looked_up(weight[0], integers)
    stands = ((integers.axes, integers),) if equal else ()
    return Semantics(
        outputs=((*integers.axes, weight[1]),),
        equal=equal,
        pins=pins,
        stands=stands,
        labels=(None,),
    )


@rule("aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(
    call: Call, weight: Operand, integers: Operand, offsets: Operand, _: bool = False, mode: int = 0,
    sparse: bool = False, weights: Operand | None = None, *__: Any, **___: Any,
) -> Semantics:  # fmt: skip
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
        e, p = _looked_up(x[a], integers)
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


@rule("aten.index_select")
def index_select(call: Call, x: Operand, dim: int, integers: Operand) -> Semantics:
    """Items of one axis by number."""
    dim = normal_axis(dim, len(x))
    if (run := _run(integers, x.shape[dim])) is not None:
        return Semantics(outputs=(Take(x, dim, *run),), moves=True)
    equal, pins = _looked_up(x[dim], integers)
    chosen = integers[0] if len(integers) else ()
    out = (*x.axes[:dim], chosen, *x.axes[dim + 1 :])
    stands = ((integers.axes, integers),) if equal else ()
    return Semantics(outputs=(out,), equal=equal, pins=pins, stands=stands, labels=(x.label,))


@rule("aten.gather", "aten.take_along_dim")
def gather(call: Call, x: Operand, dim: int, integers: Operand, **_: Any) -> Semantics:
    """One item for each of the integers, along one axis."""
    dim = normal_axis(dim, len(x))
    equal, pins = _along(x, integers, [a for a in range(len(x)) if a != dim])
    e, p = _looked_up(x[dim], integers)
    return Semantics(outputs=(integers.axes,), equal=equal + e, pins=pins + p, labels=(x.label,))


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(
    call: Call, x: Operand, dim: int, integers: Operand, source: Any, *_: Any, **__: Any
) -> Semantics:
    """The inverse of ``gather``: items of one axis are written at the places that the integers
    name."""
    dim = normal_axis(dim, len(x))
    others = [a for a in range(len(x)) if a != dim]
    equal, pins = _along(x, integers, others)
    e, p = _looked_up(x[dim], integers)
    equal, pins = equal + e, pins + p
    if isinstance(source, Operand) and source.shape:
        e, p = _along(source, integers, range(len(source)))
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
    equal, pins = _looked_up(x[dim], integers)
    if isinstance(source, Operand) and source.shape:
        equal += tuple((x[a], source[a]) for a in range(len(x)) if a != dim)
        if len(integers):
            equal += ((source[dim], integers[0]),)
        if call.name == "aten.index_copy":
            pins += _last_wins(integers, integers.axes)
    return Semantics(
        outputs=(x.axes,), equal=equal, pins=pins + call.as_numbers(x, source), labels=(None,)
    )


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
    import torch

    chosen = [i.shape for i in indices if i is not None]
    joint = torch.broadcast_shapes(*chosen)
    places = [a for a, i in enumerate(indices) if i is not None]
    rest = [n for a, n in enumerate(x.shape) if a not in places]
    lead = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    return (*rest[:lead], *joint, *rest[lead:])


@rule("aten.topk")
def topk(call: Call, x: Operand, k: int, dim: int = -1, *_: Any, **__: Any) -> Semantics:
    """The largest values along an axis, and integers that name where they were."""
    return _ranked(call, x, normal_axis(dim, len(x)))


@rule("aten.sort")
def sort(call: Call, x: Operand, *args: Any, dim: int = -1, **_: Any) -> Semantics:
    """Values by size, and integers that name where they were."""
    numbers = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    return _ranked(call, x, normal_axis(numbers[0] if numbers else dim, len(x)))


def _ranked(call: Call, x: Operand, dim: int) -> Semantics:
    rank = call.fresh((call.shapes[0] or ())[dim] if call.shapes[0] else 1)
    axes = (*x.axes[:dim], rank, *x.axes[dim + 1 :]) if len(x) else ()
    label = x[dim] if len(x) else ()
    pins = ((rank, "its items are ranked by size"), *call.ties(x, label), *call.as_numbers(x))
    return Semantics(outputs=(axes, axes), pins=pins, labels=(None, label))


@rule("aten.argmax", "aten.argmin")
def argmax(call: Call, x: Operand, dim: int | None = None, keepdim: bool = False) -> Semantics:
    """Integers that name the largest item of an axis."""
    if dim is None:
        label = sum(x.axes, ())
        pins = call.ties(x, label) + call.as_numbers(x)
        return Semantics(outputs=(((),) * len(call.shapes[0] or ()),), pins=pins, labels=(label,))
    dim = normal_axis(dim, len(x))
    axes = tuple(() if a == dim else e for a, e in enumerate(x) if keepdim or a != dim)
    return Semantics(
        outputs=(axes,), pins=call.ties(x, x[dim]) + call.as_numbers(x), labels=(x[dim],)
    )


@rule("aten.nonzero", "aten.masked_select", "aten.repeat_interleave")
def chosen(call: Call, x: Operand, *others: Operand) -> Semantics:
    """Which items come out depends on the values."""
    pins = tuple((e, "items are chosen by their values") for o in (x, *others) for e in o.axes)
    return Semantics(outputs=(None,), pins=pins)


@rule("aten.isin", "aten.bucketize", "aten.searchsorted")
def among(call: Call, x: Any, others: Any, *_: Any, **__: Any) -> Semantics | None:
    """Every entry of one tensor against all of another."""
    if call.name == "aten.searchsorted":
        x, others = others, x
    if not isinstance(x, Operand) or (isinstance(others, Operand) and len(others) > 1):
        return None
    # the other's items are compared by their values: in what order they stand matters only where
    # they are sorted
    pins = (
        tuple((e, "its items are sorted") for e in others.axes)
        if isinstance(others, Operand)
        else ()
    )
    return Semantics(outputs=(x.axes,), pins=pins)


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
