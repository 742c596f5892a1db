"""Normalisations: the mean and variance they use do not change when what they run over is
relabelled.

Mean and variance are tensors too, without the axes that they were taken over: nothing that is left
may depend on those.
"""

from typing import Any

from .._semantics import Attach, Call, Follow, Operand, Semantics, rule


@rule(
    "aten.native_batch_norm", "aten.batch_norm", "aten._native_batch_norm_legit_no_training",
    "aten._native_batch_norm_legit", "aten._batch_norm_no_update", "aten._batch_norm_with_update",
    "aten.cudnn_batch_norm", "aten.miopen_batch_norm",
)  # fmt: skip
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


@rule("aten._weight_norm_interface")
def weight_norm(call: Call, v: Operand, g: Operand, dim: int = 0) -> Semantics:
    """``g * v / |v|``, the length taken over all axes but one."""
    equal = tuple((v[a], g[a]) for a in range(len(v)) if v.shape[a] == g.shape[a])
    return Semantics(outputs=(v.axes, g.axes), equal=equal)
