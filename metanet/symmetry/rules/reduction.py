"""Reductions over whole axes, and softmax: the order of what is reduced does not matter."""

from typing import Any

from .._leaves import Expr
from .._semantics import Call, Follow, Operand, Semantics, normal_axes, normal_axis, rule


def _reduced(
    x: Operand, dim: Any, keepdim: bool
) -> tuple[tuple[Expr, ...], tuple[int | None, ...]]:
    gone = set(normal_axes(dim, len(x)))
    kept = tuple(None if a in gone else a for a in range(len(x)) if keepdim or a not in gone)
    return tuple(() if a is None else x[a] for a in kept), kept


@rule(
    "aten.mean", "aten.sum", "aten.amax", "aten.amin", "aten.logsumexp", "aten.prod", "aten.any", "aten.all",
    "aten.nansum", "aten.count_nonzero", "aten.var", "aten.std", "aten.var_mean", "aten.std_mean", "aten.max",
    "aten.min", "aten.median", "aten.aminmax", "aten._is_all_true", "aten._is_any_true",
)  # fmt: skip
def reduce(
    call: Call, x: Operand, dim: Any = None, *args: Any, keepdim: bool = False, **_: Any
) -> Semantics | None:
    """The axes disappear and stay free; integers that come out besides name items of the axis."""
    if isinstance(dim, Operand):  # aten.max of two tensors
        return None
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, args = None, (dim, *args)
    keepdim = keepdim or (bool(args) and args[-1] is True and len(call.shapes[0] or ()) == len(x))
    axes, kept = _reduced(x, dim, keepdim)
    label = x[normal_axis(dim, len(x))] if isinstance(dim, int) and len(x) else None
    named = call.name in ("aten.max", "aten.min", "aten.median")
    labels = tuple(label if named and i == 1 else None for i in range(len(call.shapes)))
    if x.label is not None:
        labels = None
    pins = call.ties(x, label) if named and label is not None else ()
    return Semantics(
        outputs=(axes,) * len(call.shapes), pins=pins, labels=labels, flow=(Follow(x, kept),)
    )


@rule("aten.linalg_vector_norm", "aten.norm", "aten.linalg_norm")
def norm(
    call: Call, x: Operand, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any
) -> Semantics:
    """The length of vectors."""
    axes, kept = _reduced(x, dim, keepdim)
    return Semantics(outputs=(axes,), flow=(Follow(x, kept),))


@rule(
    "aten._softmax",
    "aten._log_softmax",
    "aten.softmax",
    "aten.log_softmax",
    "aten._safe_softmax",
    "aten._masked_softmax",
)
def softmax(call: Call, x: Operand, dim: int, *_: Any, **__: Any) -> Semantics:
    """Every item against the sum over all, which is a tensor without the axis."""
    rest = tuple(e for a, e in enumerate(x) if a != normal_axis(dim, len(x)))
    return Semantics(outputs=(x.axes,), spaces=(rest,), flow=(Follow(x, tuple(range(len(x)))),))


@rule("aten.glu")
def glu(call: Call, x: Operand, dim: int = -1) -> Semantics:
    """The first half of an axis, gated by the second."""
    dim = normal_axis(dim, len(x))
    half = call.fresh(x.shape[dim] // 2)
    out = (*x.axes[:dim], half, *x.axes[dim + 1 :])
    return Semantics(outputs=(out,), equal=((x[dim], call.concat(half, half)),))


@rule("aten.tril", "aten.triu")
def triangle(call: Call, x: Operand, *_: Any) -> Semantics:
    """Rows and columns are told apart by their numbers."""
    why = "a triangle is cut out along it"
    return Semantics(outputs=(x.axes,), pins=((x[-1], why), (x[-2], why)))


@rule("aten.mse_loss", "aten.smooth_l1_loss", "aten.huber_loss")
def loss(call: Call, x: Operand, target: Operand, *_: Any, **__: Any) -> Semantics:
    """Entry by entry, then the mean over all."""
    equal = tuple(zip(x.axes, target.axes, strict=True)) if x.shape == target.shape else ()
    pins = (
        ()
        if equal or not x.shape
        else tuple((e, "a loss broadcasts it") for e in (*x.axes, *target.axes))
    )
    return Semantics(outputs=(x.axes if call.shapes[0] else (),), equal=equal, pins=pins)
