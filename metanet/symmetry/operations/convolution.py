"""Convolutions: sums over channels within groups, sliding along positions."""

from collections.abc import Sequence
from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._charges import Charges
from .._flow import Attach, Contraction, Flow, Window
from .._leaves import Expr
from .._operand import Operand
from .._operation import Call, Semantics, law, rule


@rule("aten.convolution")
def convolution(
    call: Call,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Semantics:
    """Channels are summed over within groups; positions keep their place.

    Shapes:
        - **x** ``(batch, groups * i, ...)``; **weight** ``(groups * o, i, ...)``, or ``(groups * i,
          o, ...)`` when transposed; **returns** ``(batch, groups * o, ...)``
    """
    channel = 0 if len(x) == len(weight) - 1 else 1  # 0: a single example without a batch
    places = len(weight) - 2
    window = Window(
        _for_each(stride, places),
        _for_each(padding, places),
        _for_each(dilation, places),
        transposed,
    )

    # The weight's groups first: its inputs may depend on them, also where the data cuts the groups
    # differently.
    group = call.fresh(groups)
    grouped = (weight[0], group + call.fresh(weight.shape[0] // groups))
    if transposed:
        out = group + weight[1]
        summed = (x[channel], weight[0])
    else:
        out = weight[0]
        summed = (x[channel], group + weight[1])
    positions, pins = _positions(call, x, weight, channel, window)

    weight_in, weight_out = (0, 1) if transposed else (1, 0)
    flow: tuple[Flow, ...] = (
        Contraction(
            data=x,
            weight=weight,
            data_axis=channel,
            weight_in=weight_in,
            weight_out=weight_out,
            out_axis=channel,
            groups=groups,
            group_axis=0,
            convolution=window,
        ),
    )
    equal = [grouped, summed]
    if bias is not None:
        equal.append((bias[0], out))
        flow = (*flow, Attach(bias, (channel,), "bias"))
    batch = x.axes[:channel]
    return Semantics(
        outputs=((*batch, out, *positions),),
        equal=tuple(equal),
        pins=tuple(pins),
        # the group is the leading factor of the weight's first axis
        spaces=((*batch, *positions, *weight.axes),),
        flow=flow,
    )


def _positions(
    call: Call, x: Operand, weight: Operand, channel: int, window: Window
) -> tuple[list[Expr], list[tuple[Expr, str]]]:
    """The spatial axes of the output, and what is fixed as the kernel slides."""
    shape = call.shape
    positions: list[Expr] = []
    pins: list[tuple[Expr, str]] = []
    for i, (stride, padding) in enumerate(zip(window.stride, window.padding, strict=True)):
        before = x[channel + 1 + i]
        if (weight.shape[2 + i], stride, padding) == (1, 1, 0):
            positions.append(before)  # a kernel of one position leaves all of them alone
            continue
        behind = call.fresh(shape[channel + 1 + i])
        positions.append(behind)
        pins += [(axis, "a convolution slides along it") for axis in (before, behind)]
    pins += [(axis, "position in a convolution kernel") for axis in weight.axes[2:]]
    return positions, pins


def _for_each(option: Sequence[int], axes: int) -> tuple[int, ...]:
    """An option of a convolution for each of its spatial axes; one number counts for all."""
    return tuple(option) if len(option) > 1 else tuple(option[:1]) * axes


@law("aten.convolution")
def convolution_charges(
    call: ChargedCall,
    x: Charged,
    weight: Charged,
    bias: Charged | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> list[Axes | None]:
    """Channels are summed over within groups.

    ::

        x                (group, in)
        weight           (group, out) (in)      transposed: (group, in) (out)
        result           (group, out)
    """
    balance = call.balance
    channel = 0 if len(x) == len(weight) - 1 else 1
    for axis in (*weight.axes[2:], *(e for a, e in enumerate(x) if a != channel)):
        balance.pin(axis)
    data = _live(call.whole(x, channel))
    first = _live(weight[0])
    second = _live(weight[1])
    like = call.like()[channel]

    count = 0  # live factors of the group
    if groups > 1:
        whole = _live(like) if transposed else data
        count = len(whole) - len(second)
    group, inner = data[:count], data[count:]
    row, behind = first[:count], first[count:]
    summed, produced = (behind, second) if transposed else (second, behind)

    lines_up = balance.alike(group, row) and balance.alike(inner, summed)
    if lines_up:
        balance.cancel(inner, summed)
        out = balance.sum(group, row) + produced
        lines_up = balance.alike(out, like)
    if not lines_up:
        call.pin(x, weight, bias)
        return [None]
    out = balance.filled(like, out)
    if bias is not None:
        balance.equal(out, bias[0])
    return [tuple(out if a == channel else () for a in range(len(call.shape())))]


def _live(axis: Charges) -> Charges:
    """What of an axis charges are looked for."""
    return tuple(node for node in axis if node.live)
