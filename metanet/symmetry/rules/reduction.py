"""Pooling over windows, reductions over whole axes, and softmax."""

from typing import Any

from .._semantics import Call, Follow, Operand, Semantics, normal_axes, rule


@rule(
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.avg_pool1d",
    "aten.avg_pool2d",
    "aten.avg_pool3d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d",
)
def pool(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    """Windows slide along the trailing axes; batch and channel axes are only looped over."""
    windows = {f"avg_pool{n}d": n for n in (1, 2, 3)}
    rank = next((n for key, n in windows.items() if key in call.name), 3 if "3d" in call.name else 2)
    shape, lead = call.shapes[0] or (), len(x) - rank
    why = "a pooling window slides along it"
    spatial = tuple(call.fresh(n) for n in shape[lead:])
    return Semantics(
        outputs=((*x.axes[:lead], *spatial), *(None,) * (len(call.shapes) - 1)),
        pins=tuple((e, why) for e in (*x.axes[lead:], *spatial)),
        flow=(Follow(x, (*range(lead), *(None,) * rank)),),
    )


@rule("aten.mean", "aten.sum", "aten.amax", "aten.amin", "aten.logsumexp", "aten.prod")
def reduce(call: Call, x: Operand, dim: Any = None, keepdim: bool = False, **_: Any) -> Semantics:
    """The order of what is summed does not matter: the axis disappears and stays free."""
    gone = set(normal_axes(dim, len(x)))
    kept = [(a, None) if a in gone else (a, a) for a in range(len(x)) if keepdim or a not in gone]
    axes = tuple(a for _, a in kept)
    return Semantics(outputs=(tuple(() if a is None else x[a] for a in axes),), flow=(Follow(x, axes),))


@rule("aten._softmax", "aten._log_softmax", "aten.softmax", "aten.log_softmax")
def softmax(call: Call, x: Operand, *_: Any, **__: Any) -> Semantics:
    return Semantics(outputs=(x.axes,), flow=(Follow(x, tuple(range(len(x)))),))
