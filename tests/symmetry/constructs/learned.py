"""Learned items (latents, memories, codes), weights made by networks, and features made of
others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, images, many, p, r
from .heads import HEADS, PLAIN, join, parts, separate, split


@construct(
    "x 5, z 5, latents 6, heads 2, qk 3 per heads, vo 4 per heads",
    {
        "stem": "x, .", "latents": "latents, z", "q": "heads*qk, z", "k": "heads*qk, x", "v": "heads*vo, x",
        "o": "z, heads*vo", "head": "., z",
    },
)  # fmt: skip
def latents_pooled() -> Made:
    """Perceiver: learned queries; their mean does not know which is which."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        z = m.latents.expand(x.shape[0], -1, -1)
        y = F.scaled_dot_product_attention(split(m.q(z)), split(m.k(x)), split(m.v(x)))
        return m.head((z + m.o(join(y))).tanh().mean(1))

    return Net(
        run, stem=nn.Linear(4, 5), latents=p(6, 5), head=nn.Linear(5, 3), **separate()
    ), *many(2, 5, 4)


@construct(
    HEADS + ", memory 3 per heads",
    {**PLAIN, "keys": "memory, heads*qk", "values": "memory, heads*vo"},
)
def memory_behind() -> Made:
    """Learned keys and values behind those of the input: every head may have them in an order of
    its own."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        k, v = (
            torch.cat([a, split(b.expand(x.shape[0], -1, -1))], 2)
            for a, b in ((k, m.keys), (v, m.values))
        )
        return m.o(join((q @ k.mT).softmax(-1) @ v))

    return Net(run, keys=p(3, 6), values=p(3, 8), **separate()), *many(2, 5, 5)


@construct(HEADS, PLAIN)
def linear_attention() -> Made:
    """Keys and values are multiplied first."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        return m.o(join(q.softmax(-1) @ (k.softmax(-2).mT @ v)))

    return Net(run, **separate()), *many(2, 5, 5)


@construct(HEADS, {**PLAIN, "far": "heads*qk, .", "content place": "heads, qk"})
def relative_shift() -> Made:
    """Transformer-XL: scores for distances, shifted by padding and viewing."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        (q, k, v), n = parts(m, x), x.shape[1]
        distances = torch.arange(n - 1, -n, -1)[:, None] * torch.tensor([0.3, 0.7, 1.1])
        far = split(m.far(distances.sin()[None]))
        shifted = F.pad((q + m.place[:, None]) @ far.mT, (1, 0)).reshape(x.shape[0], 2, 2 * n, n)
        shifted = shifted[:, :, 1:].reshape(x.shape[0], 2, n, 2 * n - 1)[..., :n]
        return m.o(join((((q + m.content[:, None]) @ k.mT) + shifted).softmax(-1) @ v))

    return Net(run, far=nn.Linear(3, 6), content=p(2, 3), place=p(2, 3), **separate()), *many(
        2, 5, 5
    )


@construct(
    "stream 5, codes 8", {"stem": "stream, .", "codes": "codes, stream", "head": "., stream"}
)
def codebook() -> Made:
    """Every vector is replaced by the nearest code: codes may be exchanged."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).flatten(0, 1)
        near = torch.cdist(x, m.codes).argmin(-1)
        return m.head(F.embedding(near, m.codes) * x.tanh())

    return Net(run, stem=nn.Linear(4, 5), codes=p(8, 5), head=nn.Linear(5, 3)), *many(6, 5, 4)


@construct("stream 6, g 7, h 4", {
    "stem": "stream, .", "one": "g, .", "weight": "h*stream, g", "bias": "h, g", "head": "., h",
})  # fmt: skip
def weights_made() -> Made:
    """A hypernetwork makes a layer's weight and bias for every example."""

    def run(m: nn.Module, x: Tensor, by: Tensor) -> Tensor:
        by = m.one(by).tanh()
        weight = m.weight(by).view(-1, 4, 6)
        y = torch.baddbmm(m.bias(by)[:, None], m.stem(x), weight.mT)
        return m.head(y.relu())

    net = Net(run, stem=nn.Linear(4, 6), one=nn.Linear(3, 7), weight=nn.Linear(7, 24), bias=nn.Linear(7, 4),
              head=nn.Linear(4, 3))  # fmt: skip
    return net, (r(2, 5, 4), r(2, 3)), (r(3, 7, 4), r(3, 3))


@construct("stream 6, h 5, rank 2", {
    "stem": "stream, .", "layer": "h, stream", "down": "rank, stream", "up": "h, rank", "head": "., h",
})  # fmt: skip
def low_rank() -> Made:
    """LoRA: a product of two thin matrices is added to a weight."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(
            F.linear(m.stem(x).tanh(), m.layer.weight + m.up @ m.down, m.layer.bias).relu()
        )

    net = Net(
        run,
        stem=nn.Linear(4, 6),
        layer=nn.Linear(6, 5),
        down=p(2, 6),
        up=p(5, 2),
        head=nn.Linear(5, 3),
    )
    return net, *many(2, 5, 4)


@construct("h 6", {"weight": "h, .", "there": "h", "back": "."})
def tied_transposed() -> Made:
    """An autoencoder with one matrix both ways."""
    run = lambda m, x: F.linear(F.linear(x, m.weight, m.there).tanh(), m.weight.t(), m.back)  # noqa: E731
    return Net(run, weight=p(6, 4), there=p(6), back=p(4)), *many(2, 5, 4)


@construct("a 3, b 4", {"a": "a, .", "b": "b, .", "head": "., a*a | a*b"})
def outer_products() -> Made:
    """All products of pairs, as one long axis."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.a(x), m.b(x)
        pairs = [(a[..., :, None] * y[..., None, :]).flatten(-2) for y in (a, b)]
        return m.head(torch.cat(pairs, -1))

    return Net(run, a=nn.Linear(4, 3), b=nn.Linear(4, 4), head=nn.Linear(21, 2)), *many(2, 5, 4)


@construct("h 4, pieces 3 per h", {"a": "h*pieces, .", "b": "., h"})
def maxout() -> Made:
    """The largest of three units: they may be exchanged for each output."""
    net = Net(
        lambda m, x: m.b(m.a(x).unflatten(-1, (4, 3)).amax(-1)),
        a=nn.Linear(5, 12),
        b=nn.Linear(4, 3),
    )
    return net, *many(2, 5, 5)


@construct("h 6", {"a": "h, .", "b.weight": "., .", "b.bias": "."})
def sorted_units() -> Made:
    """Units in the order of their values: whoever reads them does not see which is which."""
    net = Net(lambda m, x: m.b(m.a(x).sort(-1)[0].sin()), a=nn.Linear(5, 6), b=nn.Linear(6, 3))
    return net, *many(2, 5, 5)


@construct("c 4, d 5", {"stem": "c, .", "places": "., ., c", "next": "d, c", "head": "., d"})
def places_resized() -> Made:
    """A grid of learned positions, interpolated to the size of the image."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        places = m.places.reshape(1, 3, 3, 4).permute(0, 3, 1, 2)
        x = m.stem(x)
        x = x + F.interpolate(places, x.shape[-2:], mode="bicubic", align_corners=False)
        return m.head(m.next(x).relu().mean((2, 3)))

    net = Net(
        run,
        stem=nn.Conv2d(3, 4, 2, 2),
        places=p(1, 9, 4),
        next=nn.Conv2d(4, 5, 1),
        head=nn.Linear(5, 3),
    )
    return net, *images()


@construct("c 4, d 5", {"stem": "c, .", "next": "d, c*9", "head": "., d"})
def patches() -> Made:
    """Windows as columns, read by a linear layer."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(m.next(F.unfold(m.stem(x), 3).mT).relu().mean(1))

    return Net(run, stem=nn.Conv2d(3, 4, 3), next=nn.Linear(36, 5), head=nn.Linear(5, 3)), *images()


@construct("h 6, g 3", {"stem": "2*h, .", "places": "., .", "next": "g, h", "head": "., g"})
def spatial_gate() -> Made:
    """gMLP: half of the units, mixed over tokens, gate the other half."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = F.gelu(m.stem(x)).chunk(2, -1)
        return m.head(m.next(a * m.places(b.mT).mT).tanh())

    net = Net(
        run,
        stem=nn.Linear(4, 12),
        places=nn.Linear(5, 5),
        next=nn.Linear(6, 3),
        head=nn.Linear(3, 2),
    )
    return net, (r(2, 5, 4),), (r(3, 5, 4),)


@construct("h 6, k 4", {"one two": "h, .", "next": "k, h", "head": "., k"})
def neighbours() -> Made:
    """Graph convolution with the adjacency as an input."""

    def run(m: nn.Module, x: Tensor, near: Tensor) -> Tensor:
        x = (m.one(x) + near @ m.two(x)).relu()
        return m.head((near @ m.next(x)).relu().sum(1))

    net = Net(
        run, one=nn.Linear(4, 6), two=nn.Linear(4, 6), next=nn.Linear(6, 4), head=nn.Linear(4, 3)
    )
    return net, (r(2, 5, 4), r(2, 5, 5)), (r(3, 7, 4), r(3, 7, 7))


@construct("inner 6, state 3", {
    "up": "inner | inner, .", "conv": "inner, .", "rate": "inner, state", "write read": "state, inner",
    "down": "., inner",
})  # fmt: skip
def state_space() -> Made:
    """Mamba: a gate, a causal depthwise convolution, and states for every unit that decay, are
    written and read."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        u, gate = m.up(x).chunk(2, -1)
        u = F.silu(m.conv(F.pad(u.mT, (2, 0)))).mT
        write, read, keep = m.write(u), m.read(u), torch.sigmoid(m.rate)
        state, out = torch.zeros_like(keep), []
        for t in range(x.shape[1]):
            state = state * keep + u[:, t, :, None] * write[:, t, None]
            out.append((state * read[:, t, None]).sum(-1))
        return m.down(torch.stack(out, 1) * F.silu(gate))

    net = Net(run, up=nn.Linear(4, 12), conv=nn.Conv1d(6, 6, 3, groups=6), rate=p(6, 3),
              write=nn.Linear(6, 3), read=nn.Linear(6, 3), down=nn.Linear(6, 3))  # fmt: skip
    return net, *many(2, 4, 4)


@construct(
    "a 4, b 4, c 4, h 5", {"a": "a, .", "b": "b, .", "c": "c, .", "mix": "h, b", "head": "., h"}
)
def stacked_then_chosen() -> Made:
    """Feature maps stacked on a new axis of which one is read: the others are as free, though
    nobody sees them."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        maps = torch.stack([m.a(x), m.b(x), m.c(x)]).tanh()
        return m.head(m.mix(maps[1]).relu()) + maps[0].mean(-1, keepdim=True) * maps[2].amax(
            -1, keepdim=True
        )

    net = Net(
        run,
        a=nn.Linear(5, 4),
        b=nn.Linear(5, 4),
        c=nn.Linear(5, 4),
        mix=nn.Linear(4, 5),
        head=nn.Linear(5, 3),
    )
    return net, *many(2, 5, 5)
