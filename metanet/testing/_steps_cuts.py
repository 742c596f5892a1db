"""Steps of random programs that cut the same axis in several ways."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._programs import Draw, Run, State, some_axis, step


def _divisor(draw: Draw, n: int) -> int | None:
    """A number of groups, more than one, of ``n`` items."""
    divisors = [g for g in range(2, n) if n % g == 0]
    return draw.pick(*divisors) if divisors else None


def _beside(draw: Draw, tensors: list[Tensor], axis: int) -> tuple[int, int] | None:
    """Two tensors that fit one behind the other along an axis."""
    i = draw.tensor(tensors)
    others = [n for n, size in enumerate(tensors[i].shape) if n != axis]
    fits = [
        j for j, y in enumerate(tensors)
        if y.ndim == tensors[i].ndim > axis and all(y.shape[n] == tensors[i].shape[n] for n in others)
    ]  # fmt: skip
    return (i, draw.pick(*fits)) if fits else None


@step
def shuffle_concatenation(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Two tensors one behind the other, then items of the parts in turn, perhaps cut in the middle
    of a part."""
    a = 1 + draw.below(2)
    pair = _beside(draw, tensors, a)
    if pair is None:
        return None
    i, j = pair
    groups = _divisor(draw, tensors[i].shape[a] + tensors[j].shape[a])
    if groups is None:
        return None

    def run(p: State, t: list[Tensor]) -> Tensor:
        both = torch.cat([t[i], t[j].tanh()], a)
        return both.unflatten(a, (groups, -1)).transpose(a, a + 1).flatten(a, a + 1)

    return run


@step
def shuffle_and_halve(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A shuffle, of whose channels one half goes through an activation: the unit of
    ShuffleNetV2."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    groups = _divisor(draw, tensors[i].shape[a])
    if groups is None:
        return None

    def run(p: State, t: list[Tensor]) -> Tensor:
        left, *right = (
            t[i].unflatten(a, (groups, -1)).transpose(a, a + 1).flatten(a, a + 1).chunk(2, a)
        )
        return torch.cat([left, *(part.sigmoid() for part in right)], a)

    return run


@step
def unequal_groups(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Group normalisation of channels, alone or with others before them, in any number of
    groups."""
    pair = _beside(draw, tensors, 1)
    if pair is None or tensors[pair[0]].ndim < 3:
        return None
    i, j = pair
    channels = tensors[i].shape[1] + tensors[j].shape[1] * (both := draw.below(2))
    groups = _divisor(draw, channels)
    if groups is None:
        return None
    w, b = draw.parameter(channels), draw.parameter(channels)

    def run(p: State, t: list[Tensor]) -> Tensor:
        x = torch.cat([t[j], t[i]], 1) if both else t[i]
        return F.group_norm(x, groups, p[w], p[b])

    return run


@step
def convolve_unequal_groups(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A grouped convolution behind a norm of other groups."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3 or x.shape[-1] < 2:
        return None
    channels = x.shape[1]
    norms, groups = _divisor(draw, channels), _divisor(draw, channels)
    if norms is None or groups is None:
        return None
    w, b = draw.parameter(2 * groups, channels // groups, 2), draw.parameter(channels)
    return lambda p, t: F.conv1d(F.group_norm(t[i], norms, p[b]), p[w], padding=1, groups=groups)
