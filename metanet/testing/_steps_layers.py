"""Steps of random programs that compute: layers, products, reductions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._programs import Draw, Run, State, some_axis, step


@step
def linear(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A linear layer on the last axis."""
    i = draw.tensor(tensors)
    if tensors[i].ndim < 2:
        return None
    out, width = draw.pick(4, 6, 12), tensors[i].shape[-1]
    w, b = draw.parameter(out, width), draw.parameter(out)
    return lambda p, t: F.linear(t[i], p[w], p[b])


@step
def activation(draw: Draw, tensors: list[Tensor]) -> Run:
    """An entry-wise nonlinearity."""
    i, f = (
        draw.tensor(tensors),
        draw.pick(torch.relu, torch.tanh, F.gelu, torch.sin, F.silu, torch.sigmoid),
    )
    return lambda p, t: f(t[i])


@step
def softmax(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Softmax over some axis."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    return None if a is None else lambda p, t: t[i].softmax(a)


@step
def combine(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """The sum or product of two tensors that broadcast."""
    i, j = draw.tensor(tensors), draw.tensor(tensors)
    try:
        torch.broadcast_shapes(tensors[i].shape, tensors[j].shape)
    except RuntimeError:
        return None
    f = draw.pick(torch.add, torch.mul, torch.maximum)
    return lambda p, t: f(t[i], t[j])


@step
def parameter(draw: Draw, tensors: list[Tensor]) -> Run:
    """A parameter along some of the axes (a bias, a scale, a position table, a temperature per
    head)."""
    i = draw.tensor(tensors)
    x = tensors[i]
    shape = [n if a and draw.below(2) else 1 for a, n in enumerate(x.shape)]
    w, f = draw.parameter(*shape), draw.pick(torch.add, torch.mul)
    return lambda p, t: f(t[i], p[w])


@step
def gate(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Two chunks of an axis, one gating the other."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None or tensors[i].shape[a] % 2:
        return None
    count = draw.pick(2, 2, tensors[i].shape[a] // 2)
    one, other = draw.below(2), draw.below(2)

    def run(p: State, t: list[Tensor]) -> Tensor:
        parts = t[i].chunk(count, a)
        return parts[min(one, len(parts) - 1)] * parts[min(other, len(parts) - 1)].tanh()

    return run


@step
def normalise(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Layer normalisation over the last axes."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim < 3:
        return None
    last = draw.pick(1, 1, 2) if x.ndim > 3 else 1
    shape = tuple(x.shape[-last:])
    w, b = draw.parameter(*shape), draw.parameter(*shape)
    return lambda p, t: F.layer_norm(t[i], shape, p[w], p[b])


@step
def normalise_groups(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Group normalisation."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim < 3 or x.shape[1] % 2:
        return None
    w, b = draw.parameter(x.shape[1]), draw.parameter(x.shape[1])
    return lambda p, t: F.group_norm(t[i], 2, p[w], p[b])


@step
def root_mean_square(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Division by the root of the mean square along an axis."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    return (
        None
        if a is None
        else lambda p, t: t[i] * (t[i].square().mean(a, keepdim=True) + 1e-3).rsqrt()
    )


@step
def reduce(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A reduction over an axis."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None or tensors[i].ndim < 3:
        return None
    f, keep = draw.pick(torch.sum, torch.mean, torch.amax, torch.logsumexp), draw.pick(True, False)
    return lambda p, t: f(t[i], dim=a, keepdim=keep)


@step
def gram(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """The product of a tensor with its own transpose."""
    i = draw.tensor(tensors)
    return None if tensors[i].ndim < 3 else lambda p, t: t[i] @ t[i].mT


@step
def product(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A matrix product of two tensors, such as scores and values."""
    i, j = draw.tensor(tensors), draw.tensor(tensors)
    x, y = tensors[i], tensors[j]
    if min(x.ndim, y.ndim) < 3 or x.shape[:-2] != y.shape[:-2]:
        return None
    if x.shape[-1] == y.shape[-2]:
        return lambda p, t: t[i] @ t[j]
    if x.shape[-1] == y.shape[-1]:
        return lambda p, t: t[i] @ t[j].mT
    return None


@step
def attention(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Attention with fused or separate projections, grouped queries, a mask or none."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3:
        return None
    kv, per, dim = draw.pick(1, 2), draw.pick(1, 2), draw.pick(2, 3)
    heads, width, steps = kv * per, x.shape[-1], x.shape[1]
    causal = draw.pick(True, False)
    if draw.below(2):
        w = draw.parameter((heads + 2 * kv) * dim, width)
        parts = lambda p: p[w].split([heads * dim, kv * dim, kv * dim])  # noqa: E731
    else:
        q, k, v = (
            draw.parameter(heads * dim, width),
            draw.parameter(kv * dim, width),
            draw.parameter(kv * dim, width),
        )
        parts = lambda p: (p[q], p[k], p[v])  # noqa: E731

    def run(p: State, t: list[Tensor]) -> Tensor:
        q, k, v = (F.linear(t[i], w).unflatten(-1, (-1, dim)).transpose(1, 2) for w in parts(p))
        k, v = (y.repeat_interleave(per, 1) for y in (k, v))
        scores = q @ k.mT
        if causal:
            scores = scores.masked_fill(torch.ones(steps, steps, dtype=torch.bool).triu(1), -30.0)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    return run


@step
def convolve(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A convolution, plain, grouped or depthwise."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3 or x.shape[-1] < 2:
        return None
    channels = x.shape[1]
    groups = draw.pick(*[g for g in (1, 2, 3, channels) if channels % g == 0])
    out = groups * draw.pick(1, 2)
    w, b = draw.parameter(out, channels // groups, 2), draw.parameter(out)
    return lambda p, t: F.conv1d(t[i], p[w], p[b], padding=1, groups=groups)


@step
def mixture(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Experts with hidden units of their own, chosen by a router."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3:
        return None
    experts, hidden, width = draw.pick(2, 3, 4), draw.pick(2, 3), x.shape[-1]
    router, up = draw.parameter(experts, width), draw.parameter(experts, hidden, width)
    down = draw.parameter(experts, width, hidden)

    def run(p: State, t: list[Tensor]) -> Tensor:
        flat = t[i].flatten(0, 1)
        scores, chosen = F.linear(flat, p[router]).softmax(-1).topk(2, -1)
        ids = chosen.flatten()
        y = torch.bmm(p[up][ids], flat.repeat_interleave(2, 0)[..., None]).relu()
        y = torch.bmm(p[down][ids], y)[..., 0] * scores.flatten()[:, None]
        return y.unflatten(0, (-1, 2)).sum(1).view_as(t[i])

    return run


@step
def contract(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A parameter with an axis in common with the tensor and one of its own, by einsum."""
    i = draw.tensor(tensors)
    x = tensors[i]
    a, b = some_axis(draw, x), some_axis(draw, x)
    if a is None or b is None or x.ndim > 4:
        return None
    letters = "abcdef"[: x.ndim]
    kept = letters[b] if b != a and draw.below(2) else ""
    shape = ([x.shape[b]] if kept else []) + [x.shape[a], draw.pick(2, 3, 4)]
    w = draw.parameter(*shape)
    pattern = f"{letters},{kept}{letters[a]}z->{letters.replace(letters[a], '')}z"
    return lambda p, t: torch.einsum(pattern, t[i], p[w])


@step
def recurrent(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A gated recurrent layer, cell by cell."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3 or x.shape[1] > 6:
        return None
    hidden = draw.pick(3, 4)
    w, u = draw.parameter(3 * hidden, x.shape[-1]), draw.parameter(3 * hidden, hidden)

    def run(p: State, t: list[Tensor]) -> Tensor:
        h = t[i].new_zeros(t[i].shape[0], hidden)
        states = []
        for at in range(t[i].shape[1]):
            r, z, n = F.linear(t[i][:, at], p[w]).chunk(3, -1)
            s, y, m = F.linear(h, p[u]).chunk(3, -1)
            z = torch.sigmoid(z + y)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + s) * m) + z * h
            states.append(h)
        return torch.stack(states, 1)

    return run
