"""Axes that are cut in several ways: shuffles of concatenations, norms and convolutions of
different groups."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, images


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels ``(groups, n)`` as ``(n, groups)``, written out as ShuffleNet does."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


@construct("a 6, b 6", {"a": "a, .", "b": "b, .", "o": "., s?(a / b)*s:(1 | 1)"})
def shuffled_concatenation() -> Made:
    """Two layers' channels in turn: each keeps neurons of its own."""
    net = Net(lambda m, x: m.o(shuffle(torch.cat([m.a(x).relu(), m.b(x).tanh()], 1), 2)),
              a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), o=nn.Conv2d(12, 5, 1))  # fmt: skip
    return net, *images()


@construct(
    "a 4, c 3, d 4", {"a": "a | c, .", "b": "1 | d, .", "o": "., s?(a / c | 1 / d)*s:(1 | 1 | 1)"}
)
def shuffled_unequal_parts() -> Made:
    """Channels of 7 and 5 in three rows of 4, of which the second has some of both."""
    net = Net(lambda m, x: m.o(shuffle(torch.cat([m.a(x).relu(), m.b(x).tanh()], 1), 3)),
              a=nn.Conv2d(3, 7, 1), b=nn.Conv2d(3, 5, 1), o=nn.Conv2d(12, 5, 1))  # fmt: skip
    return net, *images()


@construct("g 2, a 3 per g, b 3 per g, o 2 per g",
           {"a": "g*a, .", "b": "g*b, .", "o": "g*o, s?(a / b)*s:(1 | 1)",
            "head": "., g*o"})  # fmt: skip
def shuffled_into_groups() -> Made:
    """A grouped convolution behind the shuffle: half of either layer goes into each of its
    groups."""
    net = Net(lambda m, x: m.head(m.o(shuffle(torch.cat([m.a(x).relu(), m.b(x).tanh()], 1), 2)).relu()),
              a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), o=nn.Conv2d(12, 4, 1, groups=2),
              head=nn.Conv2d(4, 3, 1))  # fmt: skip
    return net, *images()


@construct(
    "a 6, b 6",
    {"a": "a, .", "b": "b, .", "scale": "s?(a / b), s:(1 | 1), .", "o": "., s?(a / b)*s:(1 | 1)"},
)
def scaled_between() -> Made:
    """A parameter along both axes while they are apart, the chosen one first."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        both = torch.cat([m.a(x).relu(), m.b(x).tanh()], 1).unflatten(1, (2, -1)).transpose(1, 2)
        return m.o((both.flatten(3) * m.scale).unflatten(3, both.shape[3:]).flatten(1, 2))

    scale = nn.Parameter(torch.randn(6, 2, 1))
    net = Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), scale=scale, o=nn.Conv2d(12, 5, 1))
    return net, *images()


@construct(
    "a 2, b 2, c 2, d 2, e 4",
    {
        "a": "a | c, .", "b": "b | d, .", "c": "e, s?(c / d)*s:(1 | 1)",
        "n": "t?(s?(a / b)*s:(1 | 1) / e)*t:(1 | 1)", "o": "., t?(s?(a / b)*s:(1 | 1) / e)*t:(1 | 1)",
    },
)  # fmt: skip
def shuffle_units() -> Made:
    """ShuffleNetV2: half of the shuffled channels passes by, the other is replaced, and all are
    shuffled again."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = shuffle(torch.cat([m.a(x).relu(), m.b(x).relu()], 1), 2)
        left, right = x.chunk(2, 1)
        return m.o(m.n(shuffle(torch.cat([left, m.c(right).relu()], 1), 2)).tanh())

    net = Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), c=nn.Conv2d(4, 4, 1), n=nn.BatchNorm2d(8),
              o=nn.Conv2d(8, 5, 1))  # fmt: skip
    return net, *images()


@construct("a 2, b 3", {"a": "a*4, .", "b": "b*4, .", "o": "., a | b"})
def pixel_shuffled_concatenation() -> Made:
    """Of ``(c, 2, 2)`` channels two times four come from one layer, three times four from the
    other."""
    net = Net(lambda m, x: m.o(F.pixel_shuffle(torch.cat([m.a(x).relu(), m.b(x).tanh()], 1), 2)),
              a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(3, 12, 1), o=nn.Conv2d(5, 4, 1))  # fmt: skip
    return net, *images()


@construct(
    "a 4, b 2, c 2, d 4, s 6",
    {
        "h": "a | b | c | d, .", "s": "s, .", "n1": "a | b | c | d", "n2": "a | b | c | d | s",
        "o1": "., a | b | c | d", "o2": "., a | b | c | d | s",
    },
)  # fmt: skip
def norms_of_different_groups() -> Made:
    """Twelve channels in groups of 4, and with six more in groups of 6: they move within ``4 | 2 |
    2 | 4``."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        h = m.h(x)
        return m.o1(m.n1(h).relu()) + m.o2(m.n2(torch.cat([h, m.s(x)], 1)).tanh())

    net = Net(run, h=nn.Conv2d(3, 12, 1), s=nn.Conv2d(3, 6, 1), n1=nn.GroupNorm(3, 12),
              n2=nn.GroupNorm(3, 18), o1=nn.Conv2d(12, 4, 1), o2=nn.Conv2d(18, 4, 1))  # fmt: skip
    return net, *images()


@construct(
    "a 2, p 2, b 2 per p",
    {"h": "a | 2 | p*b, .", "s": "12, .", "n1": "a | 2 | p*b", "n2": "12 | a | 2 | p*b",
     "o": "., a | 2 | p*b",
     "q": "., 12 | a | 2 | p*b"},
)  # fmt: skip
def norm_behind_fixed_channels() -> Made:
    """Groups of 5 begin in the middle of groups of 2: one of these is cut in two, two may be
    exchanged."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        h, s = m.h(x), m.s(x).cumsum(1)
        return m.o(m.n1(h).relu()) + m.q(m.n2(torch.cat([s, h], 1)).tanh())

    net = Net(run, h=nn.Conv2d(3, 8, 1), s=nn.Conv2d(3, 12, 1), n1=nn.GroupNorm(4, 8), n2=nn.GroupNorm(4, 20),
              o=nn.Conv2d(8, 4, 1), q=nn.Conv2d(20, 4, 1))  # fmt: skip
    return net, *images()


@construct("a 6, b 6", {"a": "a, .", "b": "b, .", "o": "., a | b"})
def padded_apart() -> Made:
    """Two layers' channels as rows with a constant behind them for a while: each row still goes by
    its place."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        rows = torch.cat([m.a(x).relu(), m.b(x).tanh()], 1).unflatten(1, (2, -1)).flatten(3)
        rows = F.pad(rows, (0, 0, 0, 1), value=1.0).sigmoid()[:, :, :-1]
        return m.o(rows.flatten(1, 2).unflatten(2, x.shape[2:]))

    return Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), o=nn.Conv2d(12, 5, 1)), *images()


@construct("a 6", {"a b": "a, .", "o": "., 2*a"})
def padded_pairs() -> Made:
    """Every row with every row, a constant behind each: in a pair of rows there is no one row that
    it goes by."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        rows = torch.cat([m.a(x).relu(), m.b(x).tanh()], 1).unflatten(1, (2, -1)).flatten(3)
        rows = F.pad(rows, (0, 0, 0, 1), value=1.0)
        rows = (rows[:, :, None] + rows[:, None]).sigmoid().sum(2)[:, :, :-1]
        return m.o(rows.flatten(1, 2).unflatten(2, x.shape[2:]))

    return Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), o=nn.Conv2d(12, 5, 1)), *images()


def linear_attention(rows: Tensor, normed: bool) -> Tensor:
    """Queries, keys and values side by side, without a softmax; ``normed`` by a one behind the
    values.

    Shapes:
        - **rows** ``(batch, heads, positions, 3 * n)`` -> ``(batch, heads, n, positions)``
    """
    q, k, v = rows.chunk(3, -1)
    v = F.pad(v, (0, 1), value=1.0) if normed else v
    out = q.relu() @ (k.relu().transpose(-1, -2) @ v)
    out = out[..., :-1] / (out[..., -1:] + 1e-3) if normed else out
    return out.transpose(-1, -2)


def _scales(normed: bool) -> Made:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        one = m.qkv(x)
        rows = (
            torch.cat([one, m.near(m.wide(one))], 1)
            .flatten(2)
            .unflatten(1, (4, 12))
            .transpose(-1, -2)
        )
        return m.o(linear_attention(rows, normed).flatten(1, 2).unflatten(2, x.shape[2:]))

    net = Net(run, qkv=nn.Conv2d(3, 24, 1), wide=nn.Conv2d(24, 24, 3, padding=1, groups=24),
              near=nn.Conv2d(24, 24, 1, groups=6), o=nn.Conv2d(16, 5, 1))  # fmt: skip
    return net, *images()


SCALES = (
    "h 2, qk 4 per h, v 4 per h, near_qk 4 per h, near_v 4 per h",
    {
        "qkv wide": "h*(qk | qk | v), .",
        "near": "h*s:(near_qk | near_qk | near_v), s?(qk / qk / v)",
        "o": "., h*v | h*near_v",
    },
)


@construct(*SCALES)
def attention_at_two_scales() -> Made:
    """Heads of ``3 * n`` channels, and what a convolution of 3 groups per head makes of them, as
    heads behind them."""
    return _scales(normed=False)


@construct(*SCALES)
def attention_at_two_scales_normed() -> Made:
    """The linear attention of EfficientViT: dims of heads stay keyed by head while a one stands
    behind them."""
    return _scales(normed=True)


class Block(nn.Module):
    """Two convolutions behind group norms, and a shortcut, as in the UNets of diffusion models."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(4, wide), nn.Conv2d(wide, out, 3, padding=1)
        self.n2, self.c2 = nn.GroupNorm(4, out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(wide, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.c2(F.silu(self.n2(self.c1(F.silu(self.n1(x))))))


INP, ONE, TWO = "i*j*k", "a | 2 | p*b", "d*e*f"  # what the skip connections hold
MID, UP2, UP1 = "m*n", "u*v | w", "x*y"


def _inner(name: str, size: int) -> str:
    return f"{name}1 4, {name}2 {size} per {name}1"


def _block(name: str, wide: str, out: str) -> dict[str, str]:
    """The tensors of a block; the four norm groups inside it are groups of its own."""
    inner = f"{name}1*{name}2"
    return {
        f"{name}.n1": wide, f"{name}.c1": f"{inner}, {wide}", f"{name}.n2": inner,
        f"{name}.c2": f"{out}, {inner}", f"{name}.skip": f"{out}, {wide}",
    }  # fmt: skip


@construct(
    "i 2, j 2 per i, k 2 per i j, a 2, p 2, b 2 per p, d 2, e 2 per d, f 3 per d e, m 2, n 6 per "
    "m, u 2, v 5 per u,"
    "w 2, x 2, y 4 per x, z 4, t 2 per z,"
    + ",".join(_inner(n, s) for n, s in [("d1", 2), ("d2", 3), ("mid", 3), ("u2", 3), ("u1", 2), ("u0", 2)]),
    {
        "inp": f"{INP}, .", **_block("d1", INP, ONE), **_block("d2", ONE, TWO), **_block("mid", TWO, MID),
        **_block("u2", f"{MID} | {TWO}", UP2), **_block("u1", f"{UP2} | {ONE}", UP1),
        **_block("u0", f"{UP1} | {INP}", "z*t"), "norm": "z*t", "out": "., z*t",
    },
)  # fmt: skip
def unet() -> Made:
    """Skip connections put other channels beside these, so that norms of four groups cut them in
    other places."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        first = m.inp(x)
        one = m.d1(first)
        two = m.d2(F.avg_pool2d(one, 2))
        y = m.u2(torch.cat([m.mid(two), two], 1))
        y = m.u1(torch.cat([F.interpolate(y, scale_factor=2.0), one], 1))
        y = m.u0(torch.cat([y, first], 1))
        return m.out(m.norm(y).relu())

    net = Net(run, inp=nn.Conv2d(3, 8, 3, padding=1), d1=Block(8, 8), d2=Block(8, 12), mid=Block(12, 12),
              u2=Block(24, 12), u1=Block(20, 8), u0=Block(16, 8), norm=nn.GroupNorm(4, 8),
              out=nn.Conv2d(8, 3, 3, padding=1))  # fmt: skip
    return net, *images()
