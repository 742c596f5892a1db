"""Sums over a shared axis: matrix products and what is made of them."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._flow import Attach, Contraction
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, pinned, rule


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


def _matmul_charges(call: ChargedCall, left: Charged, right: Charged) -> Axes | None:
    """``(..., n, k) @ (..., k, m)``; ``None`` if one of the two is 0 everywhere."""
    if left.nothing or right.nothing:
        return None
    call.balance.cancel(left[-1], right[-2])
    batch = tuple(
        call.balance.sum(a, b) for a, b in zip(left.axes[:-2], right.axes[:-2], strict=True)
    )
    return (*batch, left[-2], right[-1])


@rule("aten.mm", "aten.bmm")
def matmul(call: Call, left: Operand, right: Operand, *_: Any) -> Semantics:
    """The plain product."""
    return _matmul(left, right)


@law("aten.mm", "aten.bmm", blank=True)
def matmul_charges(call: ChargedCall, left: Charged, right: Charged, *_: Any) -> list[Axes | None]:
    """The plain product."""
    out = _matmul_charges(call, left, right)
    call.zero = out is None
    return [out]


@rule("aten.addmm", "aten.baddbmm")
def addmm(call: Call, bias: Operand, left: Operand, right: Operand, **_: Any) -> Semantics:
    """``bias + left @ right``, the bias broadcast from the right."""
    out = (*left.axes[:-1], right[-1])
    shape = call.shape
    lead = len(shape) - len(bias)
    full = tuple(i + lead if bias.shape[i] == shape[i + lead] else None for i in range(len(bias)))
    equal = tuple((bias[i], out[a]) for i, a in enumerate(full) if a is not None)
    return _matmul(left, right, (Attach(bias, full, "bias"),), equal)


@law("aten.addmm", "aten.baddbmm")
def addmm_charges(
    call: ChargedCall, bias: Charged, left: Charged, right: Charged, *, beta: Any = 1, **_: Any
) -> list[Axes | None]:
    """The bias has the charges of the product."""
    out = _matmul_charges(call, left, right)
    added = call.aligned(bias)
    if beta == 0:
        return [out]
    if out is None:
        return [added]
    if not bias.nothing:
        for a, b in zip(out, added, strict=True):
            call.balance.equal(a, b)
    return [out]


@rule("aten.mv")
def mv(call: Call, matrix: Operand, vector: Operand) -> Semantics:
    """A matrix and a vector."""
    return Semantics(
        outputs=((matrix[0],),),
        equal=((matrix[1], vector[0]),),
        spaces=(matrix.axes,),
        flow=(Contraction(vector, matrix, data_axis=0, weight_in=1, weight_out=0, out_axis=0),),
    )


@law("aten.mv")
def mv_charges(call: ChargedCall, matrix: Charged, vector: Charged) -> list[Axes | None]:
    """A matrix and a vector."""
    call.balance.cancel(matrix[1], vector[0])
    return [(matrix[0],)]


@rule("aten.dot", "aten.vdot")
def dot(call: Call, left: Operand, right: Operand) -> Semantics:
    """Two vectors."""
    return Semantics(outputs=((),), equal=((left[0], right[0]),))


@law("aten.dot", "aten.vdot")
def dot_charges(call: ChargedCall, left: Charged, right: Charged) -> list[Axes | None]:
    """Two vectors."""
    call.balance.cancel(left[0], right[0])
    return [None]


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
    pins = pinned((left[-1], left[-2], right[-2], unknowns), why)
    out = (*right.axes[:-2], unknowns, right[-1])
    return Semantics(outputs=(out, *(None,) * (len(call.shapes) - 1)), equal=equal, pins=pins)


@rule("aten._trilinear")
def trilinear(
    call: Call,
    one: Operand,
    two: Operand,
    three: Operand,
    new1: list[int],
    new2: list[int],
    new3: list[int],
    summed: list[int],
    *_: Any,
) -> Semantics:
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
