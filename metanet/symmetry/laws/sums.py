"""Laws of operations that sum over axes: reductions, products, convolutions, normalisations,
look-ups."""

from typing import Any

from .._charges import SCALE, SIGN, Charges, part, power
from .._laws import Axes, Flow, Step, law
from .._semantics import Take, normal_axis
from .entrywise import absolute
from .rearrangement import followed, linear_by_leaf, taken


@law("aten.sum", "aten.mean")
def total(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """What is summed over has no charges."""
    return [followed(step, x)]


@law(
    "aten.amax",
    "aten.amin",
    "aten.max",
    "aten.min",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d",
    "aten.max_pool1d",
    "aten.max_pool2d",
)
def largest(step: Step, x: Flow, *args: Any, **__: Any) -> list[Axes | None]:
    """Positive factors leave their order alone."""
    step.pin(*args)
    step.pin(x, kind=SIGN)
    return [followed(step, x)]


@law("aten.var", "aten.std")
def variance(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """Quadratic (or its root): blind to the sign of what is not summed over."""
    step.balance.reads.extend(x.axes)
    out = followed(step, x)
    if step.name == "aten.var":
        return [tuple(step.balance.mapped(axis, lambda f: power(f, 2)) for axis in out)]
    return [tuple(step.balance.mapped(axis, lambda f: part(f, SCALE)) for axis in out)]


@law("aten.linalg_vector_norm")
def norm(step: Step, x: Flow, order: Any = 2, *_: Any, **__: Any) -> list[Axes | None]:
    """Blind to signs, also of what is summed over."""
    if not isinstance(order, (int, float)) or order <= 0:
        step.pin(x)
        return [None]
    unsigned = Flow(x.value, x.shape, absolute(step, x)[0] or (), x.dtype, x.data)
    return [followed(step, unsigned)]


@law("aten.glu")
def glu(step: Step, x: Flow, dim: int = -1) -> list[Axes | None]:
    """The first half of an axis is the second's to gate."""
    dim = normal_axis(dim, len(x))
    half = x.shape[dim] // 2
    gate = taken(step, Take(x, dim, half, 2 * half), 0)
    for axis in gate:
        step.balance.pin(axis)
    return [taken(step, Take(x, dim, 0, half), 0)]


def _matmul(step: Step, left: Flow, right: Flow) -> Axes | None:
    """``(..., n, k) @ (..., k, m)``; ``None`` if one of the two is 0 everywhere."""
    if left.nothing or right.nothing:
        return None
    step.balance.cancel(left[-1], right[-2])
    batch = tuple(
        step.balance.sum(a, b) for a, b in zip(left.axes[:-2], right.axes[:-2], strict=True)
    )
    return (*batch, left[-2], right[-1])


@law("aten.mm", "aten.bmm", blank=True)
def matmul(step: Step, left: Flow, right: Flow, *_: Any) -> list[Axes | None]:
    """The plain product."""
    out = _matmul(step, left, right)
    step.zero = out is None
    return [out]


@law("aten.addmm", "aten.baddbmm")
def addmm(
    step: Step, bias: Flow, left: Flow, right: Flow, *, beta: Any = 1, **_: Any
) -> list[Axes | None]:
    """The bias has the charges of the product."""
    out, own = _matmul(step, left, right), step.aligned(bias)
    if out is None or beta == 0 or bias.nothing:
        return [own if out is None and beta != 0 else out]
    for a, b in zip(out, own, strict=True):
        step.balance.equal(a, b)
    return [out]


@law("aten.mv")
def mv(step: Step, matrix: Flow, vector: Flow) -> list[Axes | None]:
    """A matrix and a vector."""
    step.balance.cancel(matrix[1], vector[0])
    return [(matrix[0],)]


@law("aten.dot", "aten.vdot")
def dot(step: Step, left: Flow, right: Flow) -> list[Axes | None]:
    """Two vectors."""
    step.balance.cancel(left[0], right[0])
    return [None]


@law("aten.convolution")
def convolution(
    step: Step, x: Flow, weight: Flow, bias: Flow | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> list[Axes | None]:  # fmt: skip
    """Channels are summed over within groups."""
    balance, channel = step.balance, 0 if len(x) == len(weight) - 1 else 1
    for axis in (*weight.axes[2:], *(e for a, e in enumerate(x) if a != channel)):
        balance.pin(axis)
    # (group, in) of x; (group, out, in) of the weight, or (group, in, out) when transposed; (group,
    # out) comes out.
    data, first, second = (
        tuple(n for n in t if n.live) for t in (step.whole(x, channel), weight[0], weight[1])
    )
    like = step.like()[channel]
    count = (
        0
        if groups == 1
        else sum(n.live for n in like) - len(second)
        if transposed
        else len(data) - len(second)
    )
    group, inner = data[:count], data[count:]
    row, rest = first[:count], first[count:]
    summed, made = (rest, second) if transposed else (second, rest)
    if not balance.alike(group, row) or not balance.alike(inner, summed):
        step.pin(x, weight, bias)
        return [None]
    balance.cancel(inner, summed)
    out = balance.sum(group, row) + made
    if not balance.alike(out, like):
        step.pin(x, weight, bias)
        return [None]
    out = balance.filled(like, out)
    if bias is not None:
        balance.equal(out, bias[0])
    return [tuple(out if a == channel else () for a in range(len(step.shape())))]


@law(
    "aten.native_batch_norm",
    "aten.batch_norm",
    "aten._native_batch_norm_legit_no_training",
    "aten._native_batch_norm_legit",
    "aten._batch_norm_no_update",
    "aten._batch_norm_with_update",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
)
def batch_norm(
    step: Step,
    x: Flow,
    weight: Flow | None,
    bias: Flow | None,
    mean: Any = None,
    var: Any = None,
    *_: Any,
) -> list[Axes | None]:
    """Odd in the input and its mean, of which eps sees the scale; linear in weight and bias."""
    balance = step.balance
    step.pin(var)
    for a in range(len(x)):
        balance.pin(x[a], SCALE if a == 1 else None)
    out = balance.mapped(x[1], lambda f: part(f, SIGN))
    if isinstance(mean, Flow):
        balance.equal(x[1], mean[0])
    if weight is not None:
        out = balance.sum(out, weight[0])
    if bias is not None:
        balance.equal(out, bias[0])
    return [tuple(out if a == 1 else () for a in range(len(x)))]


@law("aten.native_layer_norm")
def layer_norm(
    step: Step, x: Flow, shape: list[int], weight: Flow | None, bias: Flow | None, *_: Any
) -> list[Axes | None]:
    """The mean mixes all neurons; weight and bias act on each of its own."""
    step.pin(x)
    return [_gain(step, len(x) - len(shape), len(x), weight, bias)]


@law("aten.native_group_norm")
def group_norm(
    step: Step, x: Flow, weight: Flow | None, bias: Flow | None, *_: Any
) -> list[Axes | None]:
    """As a layer norm; weight and bias are per channel."""
    step.pin(x)
    out = _gain(step, 1, 2, weight, bias)
    return [out + ((),) * (len(x) - 2)]


def _gain(step: Step, start: int, stop: int, weight: Flow | None, bias: Flow | None) -> Axes:
    """Axes of ``y * weight + bias``, for a y without charges; from ``start`` on they are those of
    the weight."""
    if weight is None:
        step.pin(bias)
        return ((),) * stop
    for a in range(len(weight) if bias is not None else 0):
        step.balance.equal(weight[a], bias[a])
    return ((),) * start + weight.axes


@law("aten._weight_norm_interface")
def weight_norm(step: Step, v: Flow, g: Flow, dim: int = 0) -> list[Axes | None]:
    """``g * v / |v|``: odd in v, linear in g. That v may have any length is no matter of
    neurons."""
    step.pin(v, kind=SCALE)
    return [tuple(step.balance.sum(v[a], g[a]) for a in range(len(v))), None]


@law("aten.embedding")
def embedding(step: Step, weight: Flow, integers: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """Rows of a table."""
    step.pin(integers)
    step.balance.pin(weight[0])
    return [(*((),) * len(integers), weight[1])]


@law("aten.index", "aten._unsafe_index")
def index(step: Step, x: Flow, indices: list[Flow | None]) -> list[Axes | None]:
    """A stretch if the integers are consecutive constants, else entries of the other axes."""
    step.pin(*indices)
    given = [a for a, i in enumerate(indices) if i is not None]
    return [_looked_up(step, x, given, indices[given[0]])]


@law("aten.index_select")
def index_select(step: Step, x: Flow, dim: int, integers: Flow) -> list[Axes | None]:
    """Items of one axis by number."""
    return [_looked_up(step, x, [normal_axis(dim, len(x))], integers)]


def _looked_up(step: Step, x: Flow, gone: list[int], integers: Flow | None) -> Axes:
    if (
        step.said is not None
        and step.said.moves
        and integers is not None
        and integers.constant is not None
    ):
        start = int(integers.constant.flatten()[0]) % x.shape[gone[0]]
        return taken(step, Take(x, gone[0], start, start + integers.shape[0]), 0)
    return linear_by_leaf(step, x, gone)


@law("aten.gather", "aten.take_along_dim")
def gather(step: Step, x: Flow, dim: int, integers: Flow, **_: Any) -> list[Axes | None]:
    """One item for each of the integers."""
    step.pin(integers)
    return [linear_by_leaf(step, x, (normal_axis(dim, len(x)),))]


@law("aten.index_add")
def index_add(
    step: Step, x: Flow, dim: int, integers: Flow, source: Flow, *_: Any, **__: Any
) -> list[Axes | None]:
    """Slices are added to those that the integers name."""
    dim = normal_axis(dim, len(x))
    step.pin(integers)
    out: list[Charges] = []
    for a in range(len(x)):
        if a == dim or not (x.nothing or source.nothing):
            step.balance.equal(x[a], source[a])
        if a == dim:
            step.balance.pin(x[a])
        out.append(() if a == dim else source[a] if x.nothing else x[a])
    return [tuple(out)]
