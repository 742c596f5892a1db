"""Attention in all its spellings.

Unless something ties them to places, heads may be exchanged; within a head queries and keys share
their dims, over which the scores sum, and values have dims of their own, which the output
projection reads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, many, p, r

HEADS = "heads 2, qk 3 per heads, vo 4 per heads"
PLAIN = {"q k": "heads*qk, .", "v": "heads*vo, .", "o": "., heads*vo"}


def split(x: Tensor, heads: int = 2) -> Tensor:
    """``(batch, steps, heads dims)`` to ``(batch, heads, steps, dims)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    """The inverse of :func:`split`."""
    return x.transpose(1, 2).flatten(2)


def separate(width: int = 5, qk: int = 3, vo: int = 4, heads: int = 2) -> dict[str, nn.Module]:
    """Queries, keys, values and output, each a layer of its own."""
    return {
        "q": nn.Linear(width, heads * qk), "k": nn.Linear(width, heads * qk),
        "v": nn.Linear(width, heads * vo),
        "o": nn.Linear(heads * vo, width),
    }  # fmt: skip


def parts(m: nn.Module, x: Tensor) -> list[Tensor]:
    return [split(layer(x)) for layer in (m.q, m.k, m.v)]


def causal(n: int) -> Tensor:
    return torch.full((n, n), -30.0).triu(1)


@construct(HEADS, PLAIN)
def sdpa() -> Made:
    """Without a mask."""
    return Net(
        lambda m, x: m.o(join(F.scaled_dot_product_attention(*parts(m, x)))), **separate()
    ), *many(2, 5, 5)


@construct(HEADS, PLAIN)
def sdpa_with_a_mask() -> Made:
    """A mask for all heads says nothing of them."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        mask = causal(x.shape[1])
        return m.o(join(F.scaled_dot_product_attention(*parts(m, x), attn_mask=mask)))

    return Net(run, **separate()), *many(2, 5, 5)


@construct(HEADS, PLAIN)
def sdpa_with_padding() -> Made:
    """A mask that is an input."""

    def run(m: nn.Module, x: Tensor, kept: Tensor) -> Tensor:
        return m.o(
            join(F.scaled_dot_product_attention(*parts(m, x), attn_mask=kept[:, None, None]))
        )

    def kept(batch: int, steps: int) -> Tensor:
        return torch.arange(steps) < torch.arange(steps - batch + 1, steps + 1)[:, None]

    return Net(run, **separate()), (r(2, 5, 5), kept(2, 5)), (r(3, 7, 5), kept(3, 7))


@construct(HEADS, PLAIN)
def sdpa_causal() -> Made:
    """The mask that SDPA makes itself."""
    run = lambda m, x: m.o(join(F.scaled_dot_product_attention(*parts(m, x), is_causal=True)))  # noqa: E731
    return Net(run, **separate()), *many(2, 5, 5)


@construct(
    "heads 2, qk 3 per heads, vo 3 per heads",
    {"qkv": "heads*qk | heads*qk | heads*vo, .", "o": "., heads*vo"},
)
def fused_in_chunks() -> Made:
    """Queries, keys, values one behind the other."""
    run = lambda m, x: m.o(join(F.scaled_dot_product_attention(*map(split, m.qkv(x).chunk(3, -1)))))  # noqa: E731
    return Net(run, qkv=nn.Linear(5, 18), o=nn.Linear(6, 5)), *many(2, 5, 5)


@construct(
    "heads 2, qk 3 per heads, vo 3 per heads",
    {"qkv": "heads*qk | heads*qk | heads*vo, .", "o": "., heads*vo"},
)
def fused_by_view() -> Made:
    """The same tensor, taken apart as ``(3, heads, dims)``: timm's way."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).reshape(*x.shape[:2], 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        return m.o(join((q @ k.mT).softmax(-1) @ v))

    return Net(run, qkv=nn.Linear(5, 18), o=nn.Linear(6, 5)), *many(2, 5, 5)


@construct(
    "heads 2, qk 3 per heads, vo 3 per heads",
    {"qkv": "heads*(qk | qk | vo), .", "o": "., heads*vo"},
)
def fused_within_heads() -> Made:
    """``(heads, 3, dims)``: GPT-NeoX's way."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = split(m.qkv(x)).chunk(3, -1)
        return m.o(join(F.scaled_dot_product_attention(q, k, v)))

    return Net(run, qkv=nn.Linear(5, 18), o=nn.Linear(6, 5)), *many(2, 5, 5)


@construct(
    "stream 6, heads 2, qk 3 per heads, vo 3 per heads, out 6",
    {
        "stem": "stream, .", "mha.in_proj_weight": "heads*qk | heads*qk | heads*vo, stream",
        "mha.in_proj_bias": "heads*qk | heads*qk | heads*vo", "mha.out_proj": "out, heads*vo",
        "head": "., out",
    },
)  # fmt: skip
def multihead() -> Made:
    """PyTorch's own module on one stream."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).tanh()
        return m.head(m.mha(x, x, x, need_weights=False)[0])

    mha = nn.MultiheadAttention(6, 2, batch_first=True)
    return Net(run, stem=nn.Linear(4, 6), mha=mha, head=nn.Linear(6, 3)), *many(2, 5, 4)


@construct(
    "a 6, b 4, heads 2, qk 3 per heads, vo 3 per heads, out 6",
    {
        "left": "a, .", "right": "b, .", "mha.q_proj_weight": "heads*qk, a",
        "mha.k_proj_weight": "heads*qk, b",
        "mha.v_proj_weight": "heads*vo, b", "mha.in_proj_bias": "heads*qk | heads*qk | heads*vo",
        "mha.out_proj": "out, heads*vo", "head": "., out",
    },
)  # fmt: skip
def multihead_of_other_widths() -> Made:
    """Queries and keys from streams of other widths: three matrices, one bias."""

    def run(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        y = m.right(y).tanh()
        return m.head(m.mha(m.left(x).tanh(), y, y, need_weights=False)[0])

    mha = nn.MultiheadAttention(6, 2, kdim=4, vdim=4, batch_first=True)
    net = Net(run, left=nn.Linear(4, 6), right=nn.Linear(3, 4), mha=mha, head=nn.Linear(6, 3))
    return net, (r(2, 5, 4), r(2, 7, 3)), (r(3, 7, 4), r(3, 6, 3))


GROUPED = {"q": "kv*queries*qk, .", "k": "kv*qk, .", "v": "kv*vo, .", "o": "., kv*queries*vo"}


def grouped_layers() -> dict[str, nn.Module]:
    return {
        "q": nn.Linear(5, 18),
        "k": nn.Linear(5, 6),
        "v": nn.Linear(5, 8),
        "o": nn.Linear(24, 5),
    }


@construct("kv 2, queries 3 per kv, qk 3 per kv, vo 4 per kv", GROUPED)
def grouped_queries() -> Made:
    """Three query heads to a key-value head: these have one order of dims."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = split(m.q(x), 6), split(m.k(x)), split(m.v(x))
        return m.o(join(F.scaled_dot_product_attention(q, k, v, enable_gqa=True)))

    return Net(run, **grouped_layers()), *many(2, 5, 5)


@construct("kv 2, queries 3 per kv, qk 3 per kv, vo 4 per kv", GROUPED)
def grouped_queries_by_expand() -> Made:
    """Keys and values repeated by a view, as in Llama."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, *kv = split(m.q(x), 6), split(m.k(x)), split(m.v(x))
        k, v = (y[:, :, None].expand(-1, -1, 3, -1, -1).flatten(1, 2) for y in kv)
        return m.o(join((q @ k.mT).softmax(-1) @ v))

    return Net(run, **grouped_layers()), *many(2, 5, 5)


def angles(steps: int, pairs: int) -> Tensor:
    return torch.arange(steps)[:, None] * 10 ** -torch.arange(pairs).float()


def turned(x: Tensor) -> Tensor:
    """Rotary positions in halves (GPT-NeoX, Llama)."""
    angle = angles(x.shape[-2], x.shape[-1] // 2).repeat(1, 2)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


def turned_in_pairs(x: Tensor) -> Tensor:
    """Rotary positions of neighbours (GPT-J)."""
    angle = angles(x.shape[-2], x.shape[-1] // 2)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack(
        [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1
    ).flatten(-2)


def turned_as_complex(x: Tensor) -> Tensor:
    """Rotary positions of neighbours as complex numbers (the first Llama)."""
    angle = angles(x.shape[-2], x.shape[-1] // 2).to(x.dtype)
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def rotary(turn) -> Made:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        return m.o(join((turn(q) @ turn(k).mT).softmax(-1) @ v))

    return Net(run, **separate(qk=4)), *many(2, 5, 5)


ROTARY = ("heads 2, vo 4 per heads", {"q k": "heads*4, .", "v": "heads*vo, .", "o": "., heads*vo"})


@construct(*ROTARY)
def rotary_in_halves() -> Made:
    """Every rotated dim turns by an angle of its own."""
    return rotary(turned)


@construct(*ROTARY)
def rotary_interleaved() -> Made:
    """The same in pairs."""
    return rotary(turned_in_pairs)


@construct(*ROTARY)
def rotary_complex() -> Made:
    """The same in complex numbers."""
    return rotary(turned_as_complex)


@construct("heads 2, rest 3 per heads, vo 4 per heads", {**PLAIN, "q k": "heads*(4 | rest), ."})
def rotary_partial() -> Made:
    """Four dims turn, three pass through and are free."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        q, k = (torch.cat([turned(y[..., :4]), y[..., 4:]], -1) for y in (q, k))
        return m.o(join((q @ k.mT).softmax(-1) @ v))

    return Net(run, **separate(qk=7)), *many(2, 5, 5)


def windows(x: Tensor, n: int = 2) -> Tensor:
    b, h, w, c = x.shape
    return x.view(b, h // n, n, w // n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, c)


@construct(
    "stream 5, heads 2, qk 3 per heads, vo 3 per heads, wide 7",
    {
        "stem": "stream, .", "qkv": "heads*qk | heads*qk | heads*vo, stream", "table": "., heads",
        "o": "stream, heads*vo", "merge": "wide, stream | stream | stream | stream", "head": "., wide",
    },
)  # fmt: skip
def shifted_windows() -> Made:
    """Swin: attention within windows that are rolled, a table of relative positions with a column
    for each head, and patches merged four by four."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x.permute(0, 2, 3, 1))
        b, h, w, c = x.shape
        y = windows(torch.roll(x, (-1, -1), (1, 2)))
        q, k, v = m.qkv(y).reshape(y.shape[0], 4, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        bias = m.table[m.index.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        scores = q @ k.mT + bias
        mask = torch.zeros(h // 2 * (w // 2), 4, 4)
        mask[-1, :2, 2:] = -20.0
        scores = (scores.view(b, -1, 2, 4, 4) + mask[:, None]).view(-1, 2, 4, 4)
        y = m.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, 6))
        y = y.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, (1, 1), (1, 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return m.head(m.merge(x).tanh())

    place = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
    index = (
        ((place[:, :, None] - place[:, None]) + 1).mul(torch.tensor([3, 1])[:, None, None]).sum(0)
    )
    net = Net(run, stem=nn.Linear(3, 5), qkv=nn.Linear(5, 18), o=nn.Linear(6, 5), table=p(9, 2), index=index,
              merge=nn.Linear(20, 7), head=nn.Linear(7, 3))  # fmt: skip
    return net, (r(2, 3, 4, 6),), (r(3, 3, 6, 8),)


@construct(
    "heads! 2, qk 3 per heads!, vo 4 per heads!",
    {n: a.replace("heads", "heads!") for n, a in PLAIN.items()},
)
def alibi() -> Made:
    """A slope for each head, which no parameter holds: heads stay, their dims still have an order
    for each."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        steps = torch.arange(x.shape[1])
        far = -(steps[:, None] - steps).abs() * 2.0 ** -torch.arange(1, 3)[:, None, None]
        return m.o(join((q @ k.mT + far).softmax(-1) @ v))

    return Net(run, **separate()), *many(2, 5, 5)


@construct(HEADS, {**PLAIN, "temperature": "heads"})
def cosine() -> Made:
    """Scores of normed queries and keys, with a temperature for each head (Swin v2)."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * m.temperature.exp()
        return m.o(join(scores.softmax(-1) @ v))

    return Net(run, **separate(), temperature=p(2, 1, 1)), *many(2, 5, 5)


class Conv1D(nn.Module):
    """GPT-2's linear layer, with the weight as ``(in, out)``."""

    def __init__(self, out: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = p(inputs, out), p(out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


@construct(
    "stream 6, heads 2, qk 3 per heads, vo 3 per heads, hidden 7",
    {
        "tokens positions": "., stream", "norm": "stream",
        "attn.weight": "stream, heads*qk | heads*qk | heads*vo",
        "attn.bias": "heads*qk | heads*qk | heads*vo",
        "proj.weight": "heads*vo, stream", "proj.bias": "stream",
        "up.weight": "stream, hidden", "up.bias": "hidden", "down.weight": "hidden, stream",
        "down.bias": "stream",
    },
)  # fmt: skip
def gpt2_block() -> Made:
    """Residual stream, weights the other way round, positions beyond the example, tied embedding
    and logits."""

    def run(m: nn.Module, ids: Tensor) -> Tensor:
        x = m.tokens(ids) + m.positions(torch.arange(ids.shape[1]))
        q, k, v = map(split, m.attn(m.norm(x)).split(6, -1))
        x = x + m.proj(join(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        x = x + m.down(F.gelu(m.up(m.norm(x))))
        return F.linear(m.norm(x), m.tokens.weight)

    net = Net(run, tokens=nn.Embedding(11, 6), positions=nn.Embedding(12, 6), norm=nn.LayerNorm(6),
              attn=Conv1D(18, 6), proj=Conv1D(6, 6), up=Conv1D(7, 6), down=Conv1D(6, 7))  # fmt: skip
    return net, (torch.randint(0, 11, (2, 5)),), (torch.randint(0, 11, (3, 7)),)


@construct(
    "stream 5, heads 2, qk 3 per heads, vo 4 per heads",
    {
        "stem": "stream, .", "token": "., ., stream", "places": "., ., stream", "q k": "heads*qk, stream",
        "v": "heads*vo, stream", "o": "stream, heads*vo", "head": "., stream",
    },
)  # fmt: skip
def class_token() -> Made:
    """A token in front that is a parameter; more places than tokens."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), m.stem(x)], 1)
        x = x + m.places[:, : x.shape[1]]
        x = x + m.o(join(F.scaled_dot_product_attention(*parts(m, x))))
        return m.head(x[:, 0])

    net = Net(
        run,
        stem=nn.Linear(4, 5),
        token=p(1, 1, 5),
        places=p(1, 12, 5),
        head=nn.Linear(5, 3),
        **separate(),
    )
    return net, *many(2, 5, 4)


@construct(
    "stream 5, heads 2, qk 3 per heads, vo 4 per heads",
    {
        "stem": "stream, .",
        "q k": "stream, heads, qk",
        "v": "stream, heads, vo",
        "o": "heads, vo, .",
    },
)
def heads_by_einsum() -> Made:
    """Projections with an axis for heads (Flax's way), scores and values by einsum."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhk->bthk", m.stem(x), w) for w in (m.q, m.k, m.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return torch.einsum("bhqk,bkhd,hdo->bqo", scores, v, m.o)

    return Net(
        run, stem=nn.Linear(4, 5), q=p(5, 2, 3), k=p(5, 2, 3), v=p(5, 2, 4), o=p(2, 4, 3)
    ), *many(2, 5, 4)
