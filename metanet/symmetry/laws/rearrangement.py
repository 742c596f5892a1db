"""Laws of operations that rearrange, take apart and put together: charges go where the entries
go."""

from collections.abc import Sequence
from typing import Any

from .._charges import ZERO, Charges, Form, Occurrence, Piece, Tab
from .._laws import Axes, Flow, Step, law
from .._semantics import RULES, Call, Follow, Take, normal_axis


@law(
    "aten.permute",
    "aten.t",
    "aten.numpy_T",
    "aten.transpose",
    "aten.swapaxes",
    "aten.unsqueeze",
    "aten.squeeze",
    "aten.alias",
    "aten.detach",
    "aten.lift_fresh",
    "aten.contiguous",
    "aten.clone",
    "aten._to_copy",
    "aten.lift",
    "aten.expand",
    "aten.as_strided",
    "aten.avg_pool1d",
    "aten.avg_pool2d",
    "aten.avg_pool3d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    "aten.adaptive_avg_pool2d",
    "aten.upsample_nearest1d",
    "aten.upsample_nearest2d",
    "aten.upsample_nearest3d",
    "aten.upsample_linear1d",
    "aten.upsample_bilinear2d",
    "aten.upsample_trilinear3d",
    "aten.upsample_bicubic2d",
    "aten._upsample_bilinear2d_aa",
    "aten._upsample_bicubic2d_aa",
    "aten._upsample_nearest_exact1d",
    "aten._upsample_nearest_exact2d",
    blank=True,
)
def follow(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """Axes that stay, whatever linear is done along the others."""
    step.zero = x.nothing
    return [followed(step, x)]


def followed(step: Step, x: Flow) -> Axes:
    """The output by the semantics' word for which axes stay; those that go have no charges."""
    flow = step.said.flow[0] if step.said is not None and step.said.flow else None
    if not isinstance(flow, Follow):
        step.pin(x)
        return ((),) * len(step.shape())
    for a in set(range(len(x))).difference(flow.axes):
        step.balance.pin(x[a])
    return tuple(() if a is None else x[a] for a in flow.axes)


@law(
    "aten.view",
    "aten._unsafe_view",
    "aten.reshape",
    "aten._reshape_alias",
    "aten.view_copy",
    blank=True,
)
def view(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """The same leaves in the same order, on other axes."""
    step.zero = x.nothing
    if not any(x.axes):
        return [None]
    before = [n for a in range(len(x)) for n in step.whole(x, a) if n.live]
    out: list[Charges] = []
    for like in step.like():
        n = sum(node.live for node in like)
        own, before = tuple(before[:n]), before[n:]
        if not step.balance.alike(own, like):
            step.pin(x)
            return [None]
        out.append(step.balance.filled(like, own))
    if before:
        step.pin(x)
        return [None]
    return [tuple(out)]


@law(
    "aten.pixel_shuffle",
    "aten.pixel_unshuffle",
    "aten.channel_shuffle",
    "aten.native_channel_shuffle",
    "aten.view_as_real",
    "aten.view_as_complex",
    "aten.repeat",
    "aten.repeat_interleave",
    "aten.unfold",
    "aten.im2col",
    "aten.col2im",
    "aten.masked_select",
)
def by_leaf(step: Step, x: Flow, *others: Any, **_: Any) -> list[Axes | None]:
    """Linear, each entry from entries of the same neurons: a leaf is where it is, if there is but
    one of it."""
    step.pin(*others)
    return [linear_by_leaf(step, x)]


def linear_by_leaf(step: Step, x: Flow, gone: Sequence[int] = ()) -> Axes:
    """The output by where it has the leaves of ``x``, other than those on axes that are gone."""
    balance = step.balance
    found: dict[int, list[Form]] = {}
    for a in gone:
        balance.pin(x[a])
    for axis in (x[a] for a in range(len(x)) if a not in gone):
        for n in axis:
            for o in balance.occurrences((n,)):
                # Of what is inside a concatenation only a part may be there.
                found.setdefault(o.root, []).extend(
                    [o.form] if isinstance(n, Occurrence) else [o.form, o.form]
                )
    like = step.like()
    count: dict[int, int] = {}
    for axis in like:
        for o in balance.occurrences(axis):
            count[o.root] = count.get(o.root, 0) + 1
    for root, forms in found.items():
        if len(forms) != 1 or count.get(root) != 1:
            for form in forms:
                balance.system.vanish(form)
    kept = {
        root: forms[0] for root, forms in found.items() if len(forms) == 1 and count.get(root) == 1
    }
    return tuple(
        tuple(
            Occurrence(n.root, kept.get(n.root, ZERO)) if isinstance(n, Occurrence) and n.live else n for n in axis
        )
        for axis in like
    )  # fmt: skip


@law(
    "aten.slice",
    "aten.slice_copy",
    "aten.select",
    "aten.select_copy",
    "aten.unbind",
    "aten.unbind_copy",
    "aten.split",
    "aten.split_with_sizes",
    "aten.unsafe_split",
    "aten.unsafe_split_with_sizes",
    "aten.split_copy",
    "aten.split_with_sizes_copy",
    blank=True,
)
def stretches(step: Step, x: Flow, *args: Any, **kwargs: Any) -> list[Axes | None]:
    """What is taken keeps its charges."""
    step.zero = x.nothing
    if not any(x.axes):
        return []
    said = RULES[step.name](Call(step.name, step.shapes, step.balance.leaves), x, *args, **kwargs)
    return [taken(step, t, i) if isinstance(t, Take) else t for i, t in enumerate(said.outputs)]


def taken(step: Step, take: Take, output: int) -> Axes:
    """A stretch of one axis; axes that depend on where it is follow."""
    balance, x, axis = step.balance, take.operand, take.axis
    others = [a for a in range(len(x)) if a != axis]
    pieces = balance.pieces(step.whole(x, axis), x.shape[axis])
    chosen, at = [], 0
    for piece in pieces:
        if take.start < at + piece.size and at < take.stop:
            chosen.append(piece)
            if at < take.start or at + piece.size > take.stop or take.step != 1:
                balance.pin(piece.axis)  # only some of its items
                chosen[-1] = Piece((), piece.path, piece.size)
        at += piece.size
    out: list[Charges] = list(x.axes)
    if len(chosen) == 1:
        out[axis] = chosen[0].axis
        for a in others:
            out[a] = balance.restrict(x[a], chosen[0].path)
    else:
        like = step.like(output)
        joined = balance.joined(like[axis], chosen) if not take.drop else None
        if joined is None:
            for piece in chosen:
                balance.pin(piece.axis)
        out[axis] = joined or ()
        keys = frozenset(key for piece in chosen for key, _ in piece.path)
        for a in others:
            if balance.depends(x[a], keys):
                balance.pin(x[a])
                out[a] = ()
    return tuple(out[a] for a in (others if take.drop else range(len(x))))


@law("aten.cat", "aten.concat", blank=True)
def cat(step: Step, tensors: list[Flow], dim: int = 0) -> list[Axes | None]:
    """Every part keeps its charges, and all agree in the other axes."""
    balance = step.balance
    kept = [t for t in tensors if t.shape != (0,)]
    step.zero = all(t.nothing for t in kept)
    if not any(any(t.axes) for t in kept):
        return [None]
    dim = normal_axis(dim, len(kept[0]))
    pieces = [
        p for t in kept for p in balance.pieces(step.whole(t, dim), t.shape[dim]) if t.shape[dim]
    ]
    joined = balance.joined(step.like()[dim], pieces)
    if joined is None:
        step.pin(*kept)
        return [None]
    keys = frozenset(key for p in pieces for key, _ in p.path)
    out: list[Charges] = []
    for a in range(len(kept[0])):
        given = [t[a] for t in kept if a != dim and not t.nothing]
        for other in given[1:]:
            balance.equal(given[0], other)
        out.append(next(filter(None, given), ()))
        if balance.depends(out[a], keys):
            balance.pin(out[a])
            out[a] = ()
    out[dim] = joined
    return [tuple(out)]


@law("aten.stack", blank=True)
def stack(step: Step, tensors: list[Flow], dim: int = 0) -> list[Axes | None]:
    """All agree in their axes, or have their own at every place of the new one."""
    step.zero = all(t.nothing for t in tensors)
    if not any(t.charged for t in tensors):
        return [None]
    dim, like = normal_axis(dim, len(tensors[0]) + 1), step.like()
    out = [
        _stacked(step, like[a if a < dim else a + 1], tensors, a) for a in range(len(tensors[0]))
    ]
    out.insert(dim, like[dim])
    return [tuple(out)]


def _stacked(step: Step, like: Charges, tensors: list[Flow], axis: int) -> Charges:
    balance = step.balance
    axes = [step.whole(t, axis) for t in tensors]
    if (
        len(like) == 1
        and isinstance(like[0], Tab)
        and all(map(balance.alike, like[0].entries, axes))
    ):
        entries = tuple(map(balance.filled, like[0].entries, axes))
        return (like[0]._replace(entries=entries),)
    given = [a for a, t in zip(axes, tensors, strict=True) if not t.nothing]
    for other in given[1:]:
        balance.equal(given[0], other)
    return given[0] if given else ()


@law("aten.constant_pad_nd")
def constant_pad(step: Step, x: Flow, pad: list[int], value: Any = 0) -> list[Axes | None]:
    """Zeros are put around an axis."""
    padded = {len(x) - 1 - i // 2 for i, n in enumerate(pad) if n}
    for a in range(len(x)):
        if value != 0 or a in padded:
            step.balance.pin(x[a])
    return [tuple(() if value != 0 or a in padded else x[a] for a in range(len(x)))]


@law(
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.reflection_pad3d",
    "aten.replication_pad1d",
    "aten.replication_pad2d",
    "aten.replication_pad3d",
    "aten.flip",
    "aten.roll",
    "aten.cumsum",
    "aten._fft_r2c",
    "aten._fft_c2r",
    "aten._fft_c2c",
)
def stays(step: Step, x: Flow, *_: Any, **__: Any) -> list[Axes | None]:
    """Linear along axes that are fixed anyway."""
    return [x.axes]
