"""Convolutions: sums over channels within groups, sliding along positions."""

from typing import Any

from .._charged import Axes, Charged, ChargedCall
from .._flow import Attach, Contraction
from .._operand import Operand
from .._operation import Call, Semantics, law, rule


@rule("aten.convolution")
def convolution(
    call: Call,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Semantics:
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
    """Channels are summed over within groups."""
    balance, channel = call.balance, 0 if len(x) == len(weight) - 1 else 1
    for axis in (*weight.axes[2:], *(e for a, e in enumerate(x) if a != channel)):
        balance.pin(axis)
    # (group, in) of x; (group, out, in) of the weight, or (group, in, out) when transposed; (group,
    # out) comes out.
    data, first, second = (
        tuple(n for n in t if n.live) for t in (call.whole(x, channel), weight[0], weight[1])
    )
    like = call.like()[channel]
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
        call.pin(x, weight, bias)
        return [None]
    balance.cancel(inner, summed)
    out = balance.sum(group, row) + made
    if not balance.alike(out, like):
        call.pin(x, weight, bias)
        return [None]
    out = balance.filled(like, out)
    if bias is not None:
        balance.equal(out, bias[0])
    return [tuple(out if a == channel else () for a in range(len(call.shape())))]
