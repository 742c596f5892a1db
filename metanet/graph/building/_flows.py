"""What the builder knows of a value: which neurons its entries show, or which entries of parameters
they are.

Both are integers laid out like the value itself, repeated axes with stride 0. To follow them
through a view, a slice or a concatenation is to run the operation on the integers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...tracing import Op, Ref, references
from ..template._blocks import strided_integers

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neuron that every entry of a value shows, -1 for none.

    Attributes:
        ids: of the value's shape.
        hidden: axes that the value does not have, ``(size, step of the id)`` by key: which expert
            it is, for instance.
    """

    ids: Tensor
    hidden: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entries:
    """The entry of a parameter that every entry of a value is (or is computed from), -1 for none.

    Attributes:
        parameter: value number.
        ids: of the value's shape. On the meta device as long as strides and offset alone tell the
            entries.
        hidden: axes that the value does not have, ``(size, step of the entry)`` by key: rows of a
            table, for instance.
        role: how it enters the value, if it is not the value itself: an entry of
            ``ROLES_OF_VECTORS``.
    """

    parameter: int
    ids: Tensor
    hidden: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    role: str = "bias"

    @property
    def strided(self) -> bool:
        return self.ids.is_meta

    def real(self) -> "Entries":
        """The same with the integers written out."""
        if not self.strided:
            return self
        x = self.ids
        return replace(self, ids=strided_integers(x.shape, x.stride(), x.storage_offset()))


@dataclass(frozen=True, eq=False)
class Flow:
    """Everything known of one value: several :class:`Neurons` if its entries belong to pairs of
    neurons."""

    neurons: tuple[Neurons, ...] = ()
    entries: tuple[Entries, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.neurons or self.entries)


def whole(parameter: int, shape: Sequence[int]) -> Entries:
    """A parameter as it is."""
    return Entries(parameter, torch.empty(tuple(shape), dtype=torch.long, device="meta"))


def varies(ids: Tensor, axis: int) -> bool:
    """Whether integers differ along an axis."""
    if ids.shape[axis] <= 1 or ids.stride(axis) == 0:
        return False
    if ids.is_meta:
        return True
    (small,) = compact(ids)
    return bool((small != small.narrow(axis, 0, 1)).any())


def compact(ids: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape without the axes along which all of them are repeated."""
    keep = tuple(
        slice(None)
        if any(t.stride(a) != 0 and t.shape[a] > 1 for t in (ids, *others))
        else slice(0, 1)
        for a in range(ids.ndim)
    )
    return tuple(t[keep] for t in (ids, *others))


def unique_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The different pairs ``(pairs, 2)`` of entries of two tensors, and for every entry the number
    of its pair."""
    left, right = left.reshape(-1), right.reshape(-1)
    base = int(right.max()) + 2 if len(right) else 1
    keys, inverse = torch.unique((left + 1) * base + right + 1, return_inverse=True)
    return torch.stack([keys // base - 1, keys % base - 1], 1), inverse


def distinct(ids: Tensor) -> Tensor:
    """The different entries of a tensor, without -1."""
    (small,) = compact(ids)
    if small.numel() < 10_000:
        found = torch.unique(small)
        return found[found >= 0]
    mask = torch.zeros(int(small.max()) + 2, dtype=torch.bool)
    mask[small.reshape(-1)] = True  # -1 marks the last, which is no entry
    return mask[:-1].nonzero()[:, 0]


def unique_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of a table as they come, and for every row its number.

    Rows are told apart by random 64-bit sums: comparing them entry by entry takes ten times as
    long.
    """
    weights = (
        torch.randint(-(2**62), 2**62, table.shape[1:], generator=torch.Generator().manual_seed(0))
        * 2
        + 1
    )
    sums, inverse = torch.unique((table * weights).sum(-1), return_inverse=True)
    places = torch.arange(len(inverse))
    first = torch.full((len(sums),), len(inverse)).scatter_reduce(0, inverse, places, "amin")
    order = first.argsort()
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order))
    return table[first[order]], number[inverse]


def place(ids: Tensor, axes: Sequence[int | None], shape: Sequence[int]) -> Tensor:
    """Integers whose axis ``i`` becomes axis ``axes[i]`` of the shape; ``None``: it goes (its first
    item stands)."""
    for axis in reversed(range(ids.ndim)):
        if axes[axis] is None:
            ids = ids.select(axis, 0)
    kept = [a for a in axes if a is not None]
    order = sorted(range(len(kept)), key=kept.__getitem__)
    ids = ids.permute(order)
    for axis in range(len(shape)):
        if axis not in kept:
            ids = ids.unsqueeze(axis)
    return ids.expand(tuple(shape))


# ---------------------------------------------------------------- running an operation on integers

_SAME = {
    "aten.clone", "aten.alias", "aten.detach", "aten.contiguous", "aten._to_copy", "aten.lift", "aten.lift_fresh",
    "aten.native_dropout", "aten.dropout", "aten.feature_dropout",
}  # fmt: skip
_VIEWS = {
    "aten.view", "aten._unsafe_view", "aten.reshape", "aten._reshape_alias", "aten.permute", "aten.t", "aten.transpose",
    "aten.unsqueeze", "aten.squeeze", "aten.expand", "aten.slice", "aten.select", "aten.unbind", "aten.split",
    "aten.split_with_sizes", "aten.unsafe_split", "aten.unsafe_split_with_sizes", "aten.unfold", "aten.diagonal",
    "aten.swapaxes", "aten.numpy_T", "aten.view_copy", "aten.slice_copy", "aten.select_copy", "aten.unbind_copy",
    "aten.split_copy", "aten.split_with_sizes_copy", "aten.narrow", "aten.chunk", "aten.unflatten",
}  # fmt: skip
_COPIES = {
    "aten.repeat", "aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.channel_shuffle", "aten.native_channel_shuffle",
    "aten.index", "aten.index_select", "aten.gather", "aten.take_along_dim", "aten.roll", "aten.flip", "aten.im2col",
    "aten.as_strided", "aten.constant_pad_nd", "aten.reflection_pad1d", "aten.reflection_pad2d",
    "aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d", "aten.reflection_pad3d", "aten.rot90",
    "aten.repeat_interleave", "aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d",
}  # fmt: skip
_FUNCTIONAL = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}


def rearranges(name: str) -> bool:
    return name in _SAME or name in _VIEWS or name in _COPIES


def rearrange(op: Op, ids: Tensor, constant: Callable[[int], Tensor | None]) -> list[Tensor] | None:
    """What the operation does to integers in place of its first tensor; ``None`` if it needs values
    not known.

    Meta tensors stay meta where the result is a view, and are written out where it is not.
    """
    if op.name in _SAME:
        return [ids] * max(1, len(op.outputs))
    first, *others = references((op.args, op.kwargs))
    known = {r.value: constant(r.value) for r in others}
    if any(t is None for t in known.values()):
        return None
    if ids.is_meta:
        if op.name in _VIEWS:
            try:
                return _run(_viewing(op), op, ids, first, known)
            except RuntimeError:  # no view: these strides cannot tell it
                pass
        ids = strided_integers(ids.shape, ids.stride(), ids.storage_offset())
    call = _FUNCTIONAL.get(op.call, op.call)
    if op.name == "aten.as_strided":
        ids = ids.contiguous()
    if op.name == "aten.constant_pad_nd":
        return [_padded(ids, list(op.args[1]))]
    try:
        results = _run(call, op, ids, first, known)
    except (RuntimeError, NotImplementedError):  # some kernels know no integers, and padding is 0
        results = [t.round().long() - 1 for t in _run(call, op, (ids + 1).double(), first, known)]
    return [_without_gaps(t) for t in results] if op.name == "aten.im2col" else results


def _padded(ids: Tensor, pad: list[int]) -> Tensor:
    """Positions that are padded show the same neurons; neurons that are padded are none."""
    for i in range(len(pad) // 2):
        axis, before, after = ids.ndim - 1 - i, pad[2 * i], pad[2 * i + 1]
        if varies(ids, axis):
            ids = torch.constant_pad_nd(ids, [0] * 2 * i + [before, after], -1)
        else:
            sizes = [before + n + after if a == axis else n for a, n in enumerate(ids.shape)]
            ids = ids.narrow(axis, 0, 1).expand(sizes)
    return ids


def _without_gaps(columns: Tensor) -> Tensor:
    """Windows that reach over the border show what all the others show."""
    full = columns.amax(-1, keepdim=True)
    return (
        full.expand(columns.shape) if bool(((columns == full) | (columns < 0)).all()) else columns
    )


def _viewing(op: Op) -> Any:
    if op.name in (
        "aten.view",
        "aten._unsafe_view",
        "aten.reshape",
        "aten._reshape_alias",
        "aten.view_copy",
    ):
        return lambda x, shape, *_: x.view(shape)
    return op.call


def _run(call: Any, op: Op, ids: Tensor, first: Ref, known: Mapping[int, Tensor]) -> list[Tensor]:
    used = False

    def value(x: Any) -> Any:
        nonlocal used
        if isinstance(x, Ref):
            if x.value == first.value and not used:
                used = True
                return ids
            return known[x.value].to(ids.device)
        return type(x)(map(value, x)) if isinstance(x, (list, tuple)) else x

    out = call(*value(op.args), **{k: value(v) for k, v in op.kwargs.items()})
    return list(out) if isinstance(out, (list, tuple)) else [out]
