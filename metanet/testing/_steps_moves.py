"""Steps of random programs that rearrange, take apart and put together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._programs import Draw, Run, State, some_axis, step


@step
def split_axis(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """An axis as a product of two."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    n = tensors[i].shape[a]
    factors = [f for f in range(2, n) if n % f == 0]
    if not factors:
        return None
    f = draw.pick(*factors)
    return lambda p, t: t[i].unflatten(a, (f, n // f))


@step
def join_axes(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Two adjacent axes as one."""
    i = draw.tensor(tensors)
    if tensors[i].ndim < 3:
        return None
    a = 1 + draw.below(tensors[i].ndim - 2)
    return lambda p, t: t[i].flatten(a, a + 1)


@step
def permute(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """All axes but the first in another order."""
    i = draw.tensor(tensors)
    if tensors[i].ndim < 3:
        return None
    order = (
        0,
        *(1 + int(a) for a in torch.randperm(tensors[i].ndim - 1, generator=draw.generator)),
    )
    return lambda p, t: t[i].permute(order)


@step
def stretch(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A slice of an axis."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    n = tensors[i].shape[a]
    start = draw.below(n - 1)
    length, by = 1 + draw.below(n - start), draw.pick(1, 1, 1, 2)
    index = (slice(None),) * a + (slice(start, start + length, by),)
    return lambda p, t: t[i][index]


@step
def select(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """One item of an axis."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None or tensors[i].ndim < 3:
        return None
    at = draw.below(tensors[i].shape[a])
    return lambda p, t: t[i].select(a, at)


@step
def concatenate(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Two tensors one behind the other."""
    i, j = draw.tensor(tensors), draw.tensor(tensors)
    x, y = tensors[i], tensors[j]
    fits = [
        axis
        for axis in range(1, x.ndim)
        if (*x.shape[:axis], *x.shape[axis + 1 :]) == (*y.shape[:axis], *y.shape[axis + 1 :])
    ]
    if not fits:
        return None
    a = draw.pick(*fits)
    return lambda p, t: torch.cat([t[i], t[j]], a)


@step
def rotate_halves(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """The second part of an axis before the first, with a sign: half of a rotary embedding."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    at = 1 + draw.below(tensors[i].shape[a] - 1)
    return lambda p, t: torch.cat(
        [-t[i].narrow(a, at, t[i].shape[a] - at), t[i].narrow(a, 0, at)], a
    )


@step
def stack(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Two tensors along a new axis."""
    i, j = draw.tensor(tensors), draw.tensor(tensors)
    if tensors[i].shape != tensors[j].shape:
        return None
    a = 1 + draw.below(tensors[i].ndim)
    return lambda p, t: torch.stack([t[i], t[j]], a)


@step
def shuffle_channels(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A channel shuffle."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None or tensors[i].shape[a] not in (4, 6, 12):
        return None
    f = draw.pick(2, tensors[i].shape[a] // 2)
    return lambda p, t: t[i].unflatten(a, (f, -1)).transpose(a, a + 1).flatten(a, a + 1)


@step
def in_order(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Operations for which the order of the items matters."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    return draw.pick(
        lambda p, t: t[i].cumsum(a),
        lambda p, t: t[i].flip(a),
        lambda p, t: t[i].roll(1, a),
        lambda p, t: t[i].sort(a)[0],
    )


@step
def look_up(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Items by constant numbers."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    numbers = torch.randint(tensors[i].shape[a], (draw.pick(2, 3),), generator=draw.generator)
    return lambda p, t: (
        t[i].index_select(a, numbers) if numbers[0] else t[i][(slice(None),) * a + (numbers,)]
    )


@step
def gather_chosen(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """The entries that ``topk`` chose, kept or put back in their places."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    back = draw.pick(True, False)

    def run(p: State, t: list[Tensor]) -> Tensor:
        values, chosen = t[i].topk(2, a)
        return (
            torch.zeros_like(t[i]).scatter(a, chosen, values)
            if back
            else t[i].square().gather(a, chosen)
        )

    return run


@step
def positions(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """The first rows of a table that is longer than the tensor."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3:
        return None
    w = draw.parameter(x.shape[1] + 2, x.shape[2])
    return lambda p, t: t[i] + p[w][: t[i].shape[1]]


@step
def written(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Zeros, written in two stretches."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    n = tensors[i].shape[a]
    at = 1 + draw.below(n - 1)

    def run(p: State, t: list[Tensor]) -> Tensor:
        out = torch.zeros_like(t[i])
        out.narrow(a, 0, n - at).copy_(t[i].narrow(a, at, n - at))
        out.narrow(a, n - at, at).add_(t[i].narrow(a, 0, at))
        return out

    return run


@step
def pad(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Zeros around an axis."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    around = [0, 0] * (tensors[i].ndim - 1 - a) + [draw.below(2), 1]
    return lambda p, t: F.pad(t[i], around)


@step
def spread(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A new axis along which nothing varies, or a tensor several times in a row."""
    i = draw.tensor(tensors)
    if tensors[i].ndim > 4:
        return None
    a, n = 1 + draw.below(tensors[i].ndim), draw.pick(2, 3)
    if draw.below(2):
        return lambda p, t: t[i].unsqueeze(a).expand(*t[i].shape[:a], n, *t[i].shape[a:])
    times = [1] * tensors[i].ndim
    times[draw.below(tensors[i].ndim - 1) + 1 if tensors[i].ndim > 1 else 0] = n
    return lambda p, t: t[i].repeat(times)


@step
def windows(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Windows that slide along an axis."""
    i = draw.tensor(tensors)
    if tensors[i].ndim < 3 or tensors[i].shape[-1] < 3:
        return None
    if draw.below(2) and tensors[i].ndim == 3:
        return lambda p, t: F.avg_pool1d(t[i], 2, 1)
    a = some_axis(draw, tensors[i])
    return None if a is None else lambda p, t: t[i].unfold(a, 2, 1)
