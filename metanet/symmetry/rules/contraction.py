"""Sums over a shared axis: matrix products and convolutions."""

from typing import Any

from .._leaves import Expr
from .._semantics import Attach, Call, Contraction, Operand, Semantics, rule


def _matmul(
    left: Operand, right: Operand, extra: tuple[Any, ...] = (), equal: tuple[Any, ...] = ()
) -> Semantics:
    """The last axis of ``left`` and the second-last of ``right`` list the same items.

    Shapes:
        - **left** ``(..., n, k)``, **right** ``(..., k, m)`` -> ``(..., n, m)``
    """
    *batch, n, k = left
    *batch_right, k_right, m = right
    last = len(left) - 1
    return Semantics(
        outputs=((*batch, n, m),),
        equal=(*zip(batch, batch_right, strict=True), (k, k_right), *equal),
        spaces=((*batch, n, m, k),),
        flow=(
            Contraction(
                left, right, data_axis=last, weight_in=last - 1, weight_out=last, out_axis=last
            ),
            Contraction(
                right,
                left,
                data_axis=last - 1,
                weight_in=last,
                weight_out=last - 1,
                out_axis=last - 1,
            ),
            *extra,
        ),
    )


@rule("aten.mm", "aten.bmm")
def matmul(call: Call, left: Operand, right: Operand, *_: Any) -> Semantics:
    """The plain product."""
    return _matmul(left, right)


@rule("aten.addmm", "aten.baddbmm")
def addmm(call: Call, bias: Operand, left: Operand, right: Operand, **_: Any) -> Semantics:
    """``bias + left @ right``, the bias broadcast from the right."""
    out = (*left.axes[:-1], right[-1])
    shape = call.shapes[0] or ()
    lead = len(shape) - len(bias)
    full = tuple(i + lead if bias.shape[i] == shape[i + lead] else None for i in range(len(bias)))
    equal = tuple((bias[i], out[a]) for i, a in enumerate(full) if a is not None)
    return _matmul(left, right, (Attach(bias, full, "bias"),), equal)


@rule("aten.mv")
def mv(call: Call, matrix: Operand, vector: Operand) -> Semantics:
    """A matrix and a vector."""
    return Semantics(
        outputs=((matrix[0],),),
        equal=((matrix[1], vector[0]),),
        spaces=(matrix.axes,),
        flow=(Contraction(vector, matrix, data_axis=0, weight_in=1, weight_out=0, out_axis=0),),
    )


@rule("aten.dot", "aten.vdot")
def dot(call: Call, left: Operand, right: Operand) -> Semantics:
    """Two vectors."""
    return Semantics(outputs=((),), equal=((left[0], right[0]),))


@rule("aten.convolution")
def convolution(
    call: Call, x: Operand, weight: Operand, bias: Operand | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Semantics:  # fmt: skip
    """Channels are summed over within groups; positions keep their place.

    Shapes:
        - **x** ``(batch, groups * i, ...)``; **weight** ``(groups * o, i, ...)``, or ``(groups * i,
          o, ...)`` when transposed; **returns** ``(batch, groups * o, ...)``
    """
    shape = call.shapes[0] or ()
    if len(x) == len(weight) - 1:  # an unbatched example
        batch, channel = (), 0
    else:
        batch, channel = (x[0],), 1
    group = call.fresh(groups)
    weight_in, weight_out = (0, 1) if transposed else (1, 0)
    if (
        transposed
    ):  # the weight's first axis is (group, in), its second out; the output's channels (group, out)
        out = group + weight[1]
        equal = [
            (weight[0], group + call.fresh(weight.shape[0] // groups)),
            (x[channel], weight[0]),
        ]
    else:
        out = weight[0]
        # The weight's groups first: its inputs may depend on them, also where the data cuts the
        # groups differently.
        equal = [
            (weight[0], group + call.fresh(weight.shape[0] // groups)),
            (x[channel], group + weight[1]),
        ]
    if bias is not None:
        equal.append((bias[0], out))
    why, spatial, pins = "a convolution slides along it", [], []
    for i, n in enumerate(shape[channel + 1 :]):
        if weight.shape[2 + i] == 1 and _at(stride, i) == 1 and _at(padding, i) == 0:
            spatial.append(x[channel + 1 + i])  # a kernel of one position leaves all of them alone
        else:
            spatial.append(call.fresh(n))
            pins += [(x[channel + 1 + i], why), (spatial[-1], why)]
    pins += [(e, "position in a convolution kernel") for e in weight.axes[2:]]
    flow: list[Any] = [
        Contraction(
            x,
            weight,
            channel,
            weight_in,
            weight_out,
            channel,
            groups,
            group_axis=0,
            convolution=True,
        )
    ]
    if bias is not None:
        flow.append(Attach(bias, (channel,), "bias"))
    space = (
        *batch,
        *spatial,
        *weight.axes,
    )  # the group is the leading factor of the weight's first axis
    return Semantics(
        outputs=((*batch, out, *spatial),),
        equal=tuple(equal),
        pins=tuple(pins),
        spaces=(space,),
        flow=tuple(flow),
    )


def _at(sizes: list[int], axis: int) -> int:
    """An option of a convolution along one of its spatial axes; one number counts for all."""
    return sizes[axis] if len(sizes) > 1 else sizes[0]


@rule("aten._cdist_forward", "aten._euclidean_dist")
def distance(call: Call, left: Operand, right: Operand, *_: Any) -> Semantics:
    """Distances between all rows of ``(..., n, k)`` and ``(..., m, k)``."""
    batch = tuple(zip(left.axes[:-2], right.axes[:-2], strict=True))
    out = (*left.axes[:-1], right[-2])
    return Semantics(
        outputs=(out,), equal=(*batch, (left[-1], right[-1])), spaces=((*out, left[-1]),)
    )


@rule("aten.linalg_solve_triangular", "aten._linalg_solve_ex")
def solve(call: Call, left: Operand, right: Operand, *_: Any, **options: Any) -> Semantics | None:
    """The solution of ``left @ x = right``; unknowns and equations are told apart, right-hand sides
    are not.

    Shapes:
        - **left** ``(..., n, n)``, **right** ``(..., n, m)`` -> ``(..., n, m)``
    """
    if options.get("left") is False or len(left) != len(right):
        return None
    unknowns, why = call.fresh(right.shape[-2]), "equations are solved along it"
    equal = tuple((a, b) for a, b in zip(left.axes[:-2], right.axes[:-2], strict=True))
    pins = tuple((e, why) for e in (left[-1], left[-2], right[-2], unknowns))
    out = (*right.axes[:-2], unknowns, right[-1])
    return Semantics(outputs=(out, *(None,) * (len(call.shapes) - 1)), equal=equal, pins=pins)


@rule("aten._trilinear")
def trilinear(
    call: Call, one: Operand, two: Operand, three: Operand, new1: list[int], new2: list[int], new3: list[int],
    summed: list[int], *_: Any,
) -> Semantics:  # fmt: skip
    """The product of three tensors, broadcast over new axes at the given places and summed over
    some (bilinear layers).

    Shapes:
        - for ``nn.Bilinear``: **one** ``(n, i)``, **two** ``(o, i, j)``, **three** ``(n, j)`` ->
          ``(n, o)``
    """
    rank = len(one) + len(new1)
    joint: list[Expr] = [()] * rank
    equal: list[tuple[Expr, Expr]] = []
    for operand, new in ((one, new1), (two, new2), (three, new3)):
        places = [a for a in range(rank) if a not in new]
        for a, expr in zip(places, operand, strict=True):
            if joint[a] and expr:
                equal.append((joint[a], expr))
            joint[a] = joint[a] or expr
    out = tuple(e for a, e in enumerate(joint) if a not in summed)
    return Semantics(outputs=(out,), equal=tuple(equal), spaces=(tuple(joint),))


@rule("aten.linalg_matrix_exp")
def matrix_exponential(call: Call, x: Operand) -> Semantics:
    """Square matrices whose rows and columns list the same items: ``exp(P A P^-1) = P exp(A)
    P^-1``."""
    return Semantics(outputs=(x.axes,), equal=((x[-2], x[-1]),))
