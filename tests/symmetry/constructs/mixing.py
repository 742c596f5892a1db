"""Gates, mixtures of experts, streams, and what mixes tokens or sets."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, many, p, r


def gated(run, up: int = 12) -> Made:
    """A layer that makes two halves, and one that reads what the gate lets through."""
    return Net(run, up=nn.Linear(5, up), down=nn.Linear(6, 3)), *many(2, 5, 5)


@construct("h 6", {"up": "h | h, .", "down": "., h"})
def glu() -> Made:
    """PyTorch's own."""
    return gated(lambda m, x: m.down(F.glu(m.up(x))))


@construct("h 6", {"up": "h | h, .", "down": "., h"})
def swiglu_chunked() -> Made:
    """Two halves by chunk."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.up(x).chunk(2, -1)
        return m.down(F.silu(a) * b)

    return gated(run)


@construct("h 6", {"up": "h | h, .", "down": "., h"})
def swiglu_unbound() -> Made:
    """Two halves by view and unbind."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.up(x).unflatten(-1, (2, 6)).unbind(-2)
        return m.down(F.silu(a) * b)

    return gated(run)


@construct("h 6", {"up": "h*2, .", "down": "., h"})
def swiglu_interleaved() -> Made:
    """Every other unit gates its neighbour."""
    return gated(lambda m, x: m.down(F.silu(m.up(x)[..., ::2]) * m.up(x)[..., 1::2]))


@construct("h 6", {"up gate": "h, .", "down": "., h"})
def swiglu_apart() -> Made:
    """Two layers."""
    net = Net(lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)), up=nn.Linear(5, 6), gate=nn.Linear(5, 6),
              down=nn.Linear(6, 3))  # fmt: skip
    return net, *many(2, 5, 5)


@construct("a 2, b 4, c 6", {"up": "a | b | c, .", "p": "., a", "q": "., b", "down": "., c"})
def split_unevenly() -> Made:
    """Three stretches with a reader each."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b, c = m.up(x).tanh().split([2, 4, 6], -1)
        return m.p(a) + m.q(b) * m.down(c)

    return Net(
        run, up=nn.Linear(5, 12), p=nn.Linear(2, 3), q=nn.Linear(4, 3), down=nn.Linear(6, 3)
    ), *many(2, 5, 5)


@construct("h 6", {"stem": "h, .", "film": "h | h, .", "head": "., h"})
def modulated() -> Made:
    """FiLM: one network makes the scales and shifts of another's units."""

    def run(m: nn.Module, x: Tensor, by: Tensor) -> Tensor:
        scale, shift = m.film(by)[:, None].chunk(2, -1)
        return m.head(F.layer_norm(m.stem(x), (6,)) * (1 + scale) + shift)

    net = Net(run, stem=nn.Linear(5, 6), film=nn.Linear(4, 12), head=nn.Linear(6, 3))
    return net, (r(2, 5, 5), r(2, 4)), (r(3, 7, 5), r(3, 4))


EXPERTS = (
    "stream 5, experts 4, hidden 3 per experts",
    {
        "stem": "stream, .", "router": "experts, stream", "up": "experts, hidden, stream",
        "down": "experts, stream, hidden", "head": "., stream",
    },
)  # fmt: skip


def mixture(run) -> Made:
    """Stacked experts that ``run`` sends tokens to; on a residual stream."""

    def whole(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).flatten(0, 1)
        return m.head(x + run(m, x, m.router(x).softmax(-1)))

    net = Net(
        whole,
        stem=nn.Linear(4, 5),
        router=nn.Linear(5, 4),
        up=p(4, 3, 5),
        down=p(4, 5, 3),
        head=nn.Linear(5, 3),
    )
    return net, *many(4, 5, 4)


@construct(*EXPERTS)
def experts_by_index() -> Made:
    """Every token's two best experts are looked up: experts may be exchanged with their rows of the
    router."""

    def run(m: nn.Module, x: Tensor, scores: Tensor) -> Tensor:
        best, chosen = scores.topk(2, -1)
        ids = chosen.flatten()
        y = torch.bmm(m.up[ids], x.repeat_interleave(2, 0)[..., None]).relu()
        y = torch.bmm(m.down[ids], y)[..., 0] * best.flatten()[:, None]
        return y.unflatten(0, (-1, 2)).sum(1)

    return mixture(run)


@construct(*EXPERTS)
def experts_by_one_hot() -> Made:
    """All experts run on all tokens; a mask of ones and zeros chooses (GShard)."""

    def run(m: nn.Module, x: Tensor, scores: Tensor) -> Tensor:
        best, chosen = scores.topk(2, -1)
        weights = (F.one_hot(chosen, 4) * best[..., None]).sum(1)
        y = torch.einsum("td,ehd->teh", x, m.up).relu()
        return torch.einsum("teh,edh,te->td", y, m.down, weights)

    return mixture(run)


@construct(*EXPERTS)
def experts_by_scatter() -> Made:
    """Scores of all experts but the best set to zero by scatter."""

    def run(m: nn.Module, x: Tensor, scores: Tensor) -> Tensor:
        best, chosen = scores.topk(2, -1)
        weights = torch.zeros_like(scores).scatter(-1, chosen, best)
        y = torch.bmm(x.expand(4, -1, -1), m.up.mT).relu()
        return (torch.bmm(y, m.down.mT) * weights.t()[..., None]).sum(0)

    return mixture(run)


@construct(*EXPERTS)
def experts_mixed() -> Made:
    """Every expert counts, by its score."""

    def run(m: nn.Module, x: Tensor, scores: Tensor) -> Tensor:
        y = torch.einsum("td,ehd->teh", x, m.up).relu()
        return torch.einsum("teh,edh,te->td", y, m.down, scores)

    return mixture(run)


@construct(
    "stream 6, a 4, b 7",
    {
        "stem": "stream, .", "n1 n2 n3": "stream", "up1": "a, stream", "down1": "stream, a",
        "up2": "b, stream",
        "down2": "stream, b", "gamma": "stream", "head": "., stream",
    },
)  # fmt: skip
def residual_stream() -> Made:
    """Blocks add to one stream, normed in two ways, scaled by unit."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.gamma * m.down1(m.up1(m.n1(x)).tanh())
        x = x + m.down2(m.up2(m.n2(x)).relu())
        return m.head(m.n3(x))

    net = Net(run, stem=nn.Linear(4, 6), n1=nn.LayerNorm(6), up1=nn.Linear(6, 4), down1=nn.Linear(4, 6),
              n2=nn.RMSNorm(6), up2=nn.Linear(6, 7), down2=nn.Linear(7, 6), n3=nn.LayerNorm(6, bias=False),
              gamma=p(6), head=nn.Linear(6, 3))  # fmt: skip
    return net, *many(2, 5, 4)


@construct("stream 6, h 4, w 7", {
    "stem": "stream, .", "mix1": "h, .", "mix2": "., h", "up": "w, stream", "down": "stream, w",
    "head": "., stream",
})  # fmt: skip
def tokens_mixed() -> Made:
    """MLP-Mixer: weights between tokens, which are places; the mixing's hidden units are free."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.mix2(F.gelu(m.mix1(x.mT))).mT
        return m.head((x + m.down(F.gelu(m.up(x)))).mean(1))

    net = Net(run, stem=nn.Linear(4, 6), mix1=nn.Linear(5, 4), mix2=nn.Linear(4, 5), up=nn.Linear(6, 7),
              down=nn.Linear(7, 6), head=nn.Linear(6, 3))  # fmt: skip
    return net, (r(2, 5, 4),), (r(3, 5, 4),)


@construct("a 6, b 5", {"own": "a, .", "all": "a, .", "next": "b, a", "head": "., b"})
def sets() -> Made:
    """Deep sets: every element less the mean of all."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = (m.own(x) + m.all(x.mean(1, keepdim=True))).relu()
        x = m.next(x - x.mean(1, keepdim=True)).relu()
        return m.head(x.amax(1) + x.sum(1))

    net = Net(
        run, own=nn.Linear(4, 6), all=nn.Linear(4, 6), next=nn.Linear(6, 5), head=nn.Linear(5, 3)
    )
    return net, *many(2, 5, 4)


@construct("a 4, b 6", {"a": "a, .", "b": "b, .", "head": "., a | b"})
def zeros_written() -> Made:
    """Two layers write their stretch of a buffer each."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        buffer = x.new_zeros(*x.shape[:-1], 10)
        buffer[..., :4] = m.a(x)
        buffer[..., 4:] = m.b(x)
        return m.head(buffer.tanh())

    return Net(run, a=nn.Linear(5, 4), b=nn.Linear(5, 6), head=nn.Linear(10, 3)), *many(2, 5, 5)


@construct("a 4, rest 6", {"a": "a, .", "head": "., a | rest"})
def zeros_written_in_part() -> Made:
    """Columns that meet only zeros may have any order."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        buffer = torch.zeros(*x.shape[:-1], 10, dtype=x.dtype)
        buffer[..., :4] = m.a(x)
        return m.head(buffer)

    return Net(run, a=nn.Linear(5, 4), head=nn.Linear(10, 3)), *many(2, 5, 5)


@construct(
    "stream 6, h 7", {"stem": "stream, .", "mix": "stream", "key": "h, stream", "head": "., h"}
)
def time_shifted() -> Made:
    """RWKV: every step is mixed with the one before it, written into zeros."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        before = torch.zeros_like(x)
        before[:, 1:] = x[:, :-1]
        return m.head(m.key(x * m.mix + before * (1 - m.mix)).relu())

    return Net(
        run, stem=nn.Linear(4, 6), mix=p(6), key=nn.Linear(6, 7), head=nn.Linear(7, 3)
    ), *many(2, 5, 4)


@dataclass
class Answer:
    """An output that is no tuple."""

    logits: Tensor
    others: dict[str, Tensor]


@construct("h 6", {"a": "h, .", "b": "h, .", "head": "., h", "value": "., h"})
def nested() -> Made:
    """Dicts and lists in, a dataclass with a dict out."""

    def run(m: nn.Module, batch: dict) -> Answer:
        x = (m.a(batch["x"]) + m.b(batch["more"][0])).tanh()
        return Answer(m.head(x), {"value": m.value(x)})

    net = Net(
        run, a=nn.Linear(4, 6), b=nn.Linear(5, 6), head=nn.Linear(6, 3), value=nn.Linear(6, 1)
    )
    return net, ({"x": r(2, 4), "more": [r(2, 5)]},), ({"x": r(3, 4), "more": [r(3, 5)]},)


@construct("h 6", {"a": "h, .", "b": "., h", "spare.0": "., ."})
def unread() -> Made:
    """What no example reads stays where it is."""
    spare = nn.Sequential(nn.Linear(6, 5))
    return Net(
        lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(4, 6), b=nn.Linear(6, 3), spare=spare
    ), *many(2, 5, 4)
