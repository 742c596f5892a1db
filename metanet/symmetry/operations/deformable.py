"""Convolutions that read their input where the data says (torchvision's; its compiled part need not
be there)."""

from typing import Any

from .._flow import Attach, Contraction, Window
from .._operand import Operand
from .._operation import Call, Semantics, rule


@rule("torchvision.deform_conv2d")
def deformable_convolution(
    call: Call,
    x: Operand,
    weight: Operand,
    offset: Operand,
    mask: Operand,
    bias: Operand,
    *options: Any,
) -> Semantics:
    """Channels are summed over within groups, as in a convolution; every offset group reads at
    places of its own.

    The input's channels are two products at once, ``(groups, i)`` and ``(offset groups, n)``: an
    offset group may move with its channels and with its offsets and masks, of which each belongs to
    one position of the kernel.

    Shapes:
        - **x** ``(batch, groups * i, h, w)``; **weight** ``(groups * o, i, kh, kw)``; **bias**
          ``(groups * o)``; **offset** ``(batch, offset groups * 2 kh kw, a, b)``; **mask**
          ``(batch, offset groups * kh kw, a, b)``, or one channel that is not used; **returns**
          ``(batch, groups * o, a, b)``
    """
    groups, offset_groups, use_mask = options[-3:]
    shape = call.shape
    window = Window(options[0:2], options[2:4], options[4:6])
    group, place = call.fresh(groups), call.fresh(offset_groups)
    out = weight[0]
    positions = tuple(call.fresh(n) for n in shape[2:])
    equal = [
        (x[1], group + weight[1]),
        (out, group + call.fresh(shape[1] // groups)),
        (bias[0], out),
        (x[1], place + call.fresh(x.shape[1] // offset_groups)),
    ]
    pins = [(e, "a convolution slides along it") for e in (*x.axes[2:], *positions)]
    pins += [(e, "position in a convolution kernel") for e in weight.axes[2:]]
    for shift in (offset, mask) if use_mask else (offset,):
        kernel = call.fresh(shift.shape[1] // offset_groups)
        equal += [(x[0], shift[0]), (shift[1], place + kernel)]
        pins += [(e, "says where a convolution reads") for e in (kernel, *shift.axes[2:])]
    return Semantics(
        outputs=((x[0], out, *positions),),
        equal=tuple(equal),
        pins=tuple(pins),
        spaces=(
            (x[0], *positions, *weight.axes),
        ),  # the groups are factors of the weight's first two axes
        flow=(
            Contraction(x, weight, 1, 1, 0, 1, groups, group_axis=0, convolution=window),
            Attach(bias, (1,), "bias"),
        ),
    )
