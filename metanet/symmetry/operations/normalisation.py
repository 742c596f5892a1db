"""Normalisations: the mean and variance they use do not change when what they run over is
relabelled.

Mean and variance are tensors too, without the axes that they were taken over: nothing that is left
may depend on those.
"""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import SCALE, SIGN, part
from .._flow import Attach, Follow
from .._operand import Operand
from .._operation import Call, Semantics, law, rule


@rule(
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
    call: Call,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    mean: Any = None,
    var: Any = None,
    *_: Any,
) -> Semantics:
    """Per channel (axis 1), with running statistics or those of the batch."""
    roles = {"scale": weight, "shift": bias, "mean": mean, "variance": var}
    attached = [(operand, role) for role, operand in roles.items() if isinstance(operand, Operand)]
    return Semantics(
        outputs=(x.axes, *(None,) * (len(call.shapes) - 1)),
        equal=tuple((operand[0], x[1]) for operand, _ in attached),
        spaces=((x[1],),),
        flow=(
            Follow(x, tuple(range(len(x)))),
            *(Attach(operand, (1,), role) for operand, role in attached),
        ),
    )


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
def batch_norm_charges(
    call: ChargedCall,
    x: Charged,
    weight: Charged | None,
    bias: Charged | None,
    mean: Any = None,
    var: Any = None,
    *_: Any,
) -> list[Axes | None]:
    """Odd in the input and its mean, of which eps sees the scale; linear in weight and bias."""
    balance = call.balance
    call.pin(var)
    for a in range(len(x)):
        balance.pin(x[a], SCALE if a == 1 else None)
    out = balance.mapped(x[1], lambda f: part(f, SIGN))
    if isinstance(mean, Charged):
        balance.equal(x[1], mean[0])
    if weight is not None:
        out = balance.sum(out, weight[0])
    if bias is not None:
        balance.equal(out, bias[0])
    return [tuple(out if a == 1 else () for a in range(len(x)))]


@rule("aten.native_layer_norm")
def layer_norm(
    call: Call, x: Operand, shape: list[int], weight: Operand | None, bias: Operand | None, *_: Any
) -> Semantics:
    """Over the last ``len(shape)`` axes together."""
    last = tuple(range(len(x) - len(shape), len(x)))
    attached = [
        (operand, role)
        for operand, role in ((weight, "scale"), (bias, "shift"))
        if operand is not None
    ]
    return Semantics(
        outputs=(x.axes, *(None,) * (len(call.shapes) - 1)),
        equal=tuple((operand[i], x[a]) for operand, _ in attached for i, a in enumerate(last)),
        spaces=(x.axes[: len(x) - len(shape)],),
        flow=(
            Follow(x, tuple(range(len(x)))),
            *(Attach(operand, last, role) for operand, role in attached),
        ),
    )


@law("aten.native_layer_norm")
def layer_norm_charges(
    call: ChargedCall,
    x: Charged,
    shape: list[int],
    weight: Charged | None,
    bias: Charged | None,
    *_: Any,
) -> list[Axes | None]:
    """The mean mixes all neurons; weight and bias act on each of its own."""
    call.pin(x)
    return [_gain(call, len(x) - len(shape), len(x), weight, bias)]


@rule("aten.native_group_norm")
def group_norm(
    call: Call,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    eps: float,
) -> Semantics:
    """Over the channels of a group together with all positions: groups move as wholes, channels
    inside their group."""
    attached = [
        (operand, role)
        for operand, role in ((weight, "scale"), (bias, "shift"))
        if operand is not None
    ]
    group = call.fresh(groups)
    grouped = group + call.fresh(c // groups)
    return Semantics(
        outputs=(x.axes, *(None,) * (len(call.shapes) - 1)),
        equal=((x[1], grouped), *((operand[0], x[1]) for operand, _ in attached)),
        spaces=((x[0], group),),
        flow=(
            Follow(x, tuple(range(len(x)))),
            *(Attach(operand, (1,), role) for operand, role in attached),
        ),
    )


@law("aten.native_group_norm")
def group_norm_charges(
    call: ChargedCall, x: Charged, weight: Charged | None, bias: Charged | None, *_: Any
) -> list[Axes | None]:
    """As a layer norm; weight and bias are per channel."""
    call.pin(x)
    out = _gain(call, 1, 2, weight, bias)
    return [out + ((),) * (len(x) - 2)]


def _gain(
    call: ChargedCall, start: int, stop: int, weight: Charged | None, bias: Charged | None
) -> Axes:
    """Axes of ``y * weight + bias``, for a y without charges; from ``start`` on they are those of
    the weight."""
    if weight is None:
        call.pin(bias)
        return ((),) * stop
    if bias is not None:
        for ours, theirs in zip(weight, bias, strict=True):
            call.balance.equal(ours, theirs)
    return ((),) * start + weight.axes


@rule("aten._weight_norm_interface")
def weight_norm(call: Call, v: Operand, g: Operand, dim: int = 0) -> Semantics:
    """``g * v / |v|``, the length taken over all axes but one."""
    equal = tuple((v[a], g[a]) for a in range(len(v)) if v.shape[a] == g.shape[a])
    return Semantics(outputs=(v.axes, g.axes), equal=equal)


@law("aten._weight_norm_interface")
def weight_norm_charges(
    call: ChargedCall, v: Charged, g: Charged, dim: int = 0
) -> list[Axes | None]:
    """``g * v / |v|``: odd in v, linear in g. That v may have any length is no matter of
    neurons."""
    call.pin(v, kind=SCALE)
    return [tuple(call.balance.sum(v[a], g[a]) for a in range(len(v))), None]
