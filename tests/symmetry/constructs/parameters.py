"""Weights that are computed, shared, recurrent or looked up."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ._construct import Made, Net, construct, many, p, r


def layered(norm, **options) -> Made:
    """Two layers, both reparametrised, with a third behind them."""
    layers = (
        norm(nn.Linear(4, 6), **options),
        nn.Tanh(),
        norm(nn.Linear(6, 5), **options),
        nn.Tanh(),
        nn.Linear(5, 3),
    )
    return nn.Sequential(*layers), *many(2, 5, 4)


FIRST, SECOND = "0.parametrizations.weight", "2.parametrizations.weight"


@construct(
    "a 6, b 5",
    {
        "0": "a, .", FIRST: "a, .", "2": "b, a", f"{SECOND}.original0": "b", f"{SECOND}.original1": "b, a",
        "4": "., b",
    },
)  # fmt: skip
def weight_norm() -> Made:
    """Length and direction of every row."""
    return layered(parametrizations.weight_norm)


@construct("a 6, b 5", {"0": "a, .", "2.weight_g 2.bias": "b", "2.weight_v": "b, a", "4": "., b"})
def weight_norm_by_hook() -> Made:
    """The same as older checkpoints have it."""
    return layered(nn.utils.weight_norm)


@construct(
    "a 6, b 5", {"0": "a, .", "2.bias": "b", "2.weight_g": ".", "2.weight_v": "b, a", "4": "., b"}
)
def weight_norm_of_all() -> Made:
    """One length for the whole matrix."""
    return layered(nn.utils.weight_norm, dim=None)


@construct(
    "a 6, b 5",
    {
        "0": "a, .", FIRST: "a, .", f"{FIRST}.0._u": "a", f"{FIRST}.0._v": ".", "2": "b, a", SECOND: "b, a",
        f"{SECOND}.0._u": "b", f"{SECOND}.0._v": "a", "4": "., b",
    },
)  # fmt: skip
def spectral_norm() -> Made:
    """In eval mode the two vectors are parameters like any other."""
    return layered(parametrizations.spectral_norm)


@construct(
    "a 6, b 5", {"0": "a, .", "0.weight_v": ".", "2": "b, a", "2.weight_v": "a", "4": "., b"}
)
def spectral_norm_by_hook() -> Made:
    """The same as older checkpoints have it."""
    return layered(nn.utils.spectral_norm)


def cells(cell: nn.Module) -> Made:
    """A cell run step by step from a first state that is a parameter."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        state = m.first.expand(x.shape[0], -1)
        state = (state, state.tanh()) if isinstance(m.cell, nn.LSTMCell) else state
        out = []
        for step in x.unbind(1):
            state = m.cell(step, state)
            out.append(m.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(out, 1)

    return Net(run, cell=cell, first=p(6), head=nn.Linear(6, 3)), *many(2, 4, 5)


def gates(n: int) -> dict[str, str]:
    return {"cell.weight_ih": f"{n}*h, .", "cell.weight_hh": f"{n}*h, h",
            "cell.bias_ih cell.bias_hh": f"{n}*h", "first": "h", "head": "., h"}  # fmt: skip


@construct("h 6", gates(4))
def lstm_cell() -> Made:
    """Four gates."""
    return cells(nn.LSTMCell(5, 6))


@construct("h 6", gates(3))
def gru_cell() -> Made:
    """Three gates."""
    return cells(nn.GRUCell(5, 6))


@construct("h 6", gates(1))
def rnn_cell() -> Made:
    """One."""
    return cells(nn.RNNCell(5, 6))


def both_ways(kind: type[nn.RNNBase], **options) -> Made:
    """Two layers in both directions; the head reads the last states of the second."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        state = m.rnn(x)[1]
        state = state[0] if isinstance(state, tuple) else state
        return m.head(torch.cat([state[-2], state[-1]], -1))

    rnn = kind(5, 6, 2, batch_first=True, bidirectional=True, **options)
    return Net(run, rnn=rnn, head=nn.Linear(2 * options.get("proj_size", 6), 3)), *many(2, 4, 5)


def directions(gates: int, projected: bool = False) -> dict[str, str]:
    out, below = {}, "."
    for layer in "01":
        units = [f"{'o' if projected else 'h'}{layer}{way}" for way in "fb"]
        for way, unit, end in zip("fb", units, ("", "_reverse"), strict=True):
            cell = f"{gates}*h{layer}{way}"
            out[f"rnn.weight_ih_l{layer}{end}"] = f"{cell}, {below}"
            out[f"rnn.weight_hh_l{layer}{end}"] = f"{cell}, {unit}"
            out[f"rnn.bias_ih_l{layer}{end} rnn.bias_hh_l{layer}{end}"] = cell
            if projected:
                out[f"rnn.weight_hr_l{layer}{end}"] = f"{unit}, h{layer}{way}"
        below = " | ".join(units)
    return {**out, "head": f"., {below}"}


@construct("h0f 6, h0b 6, h1f 6, h1b 6", directions(3))
def gru_both_ways() -> Made:
    """The second layer reads forward units with backward units behind them."""
    return both_ways(nn.GRU)


@construct("h0f 6, h0b 6, h1f 6, h1b 6, o0f 4, o0b 4, o1f 4, o1b 4", directions(4, projected=True))
def lstm_projected_both_ways() -> Made:
    """What recurs and what is read is a projection of the cell's units."""
    return both_ways(nn.LSTM, proj_size=4)


@construct("a 6, b 5, k 4", {"left": "a, .", "right": "b, .", "mix": "k, a, b", "head": "., k"})
def bilinear() -> Made:
    """A weight for every pair, by einsum with three operands."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(
            torch.einsum("bti,btj,kij->btk", m.left(x).tanh(), m.right(x).tanh(), m.mix).tanh()
        )

    net = Net(
        run, left=nn.Linear(4, 6), right=nn.Linear(4, 5), mix=p(4, 6, 5), head=nn.Linear(4, 3)
    )
    return net, *many(2, 5, 4)


@construct(
    "a 6, b 5, k 4",
    {"left": "a, .", "right": "b, .", "mix.weight": "k, a, b", "mix.bias": "k", "head": "., k"},
)
def bilinear_layer() -> Made:
    """PyTorch's own."""
    run = lambda m, x: m.head(m.mix(m.left(x).tanh(), m.right(x).tanh()).tanh())  # noqa: E731
    net = Net(
        run,
        left=nn.Linear(4, 6),
        right=nn.Linear(4, 5),
        mix=nn.Bilinear(6, 5, 4),
        head=nn.Linear(4, 3),
    )
    return net, *many(2, 5, 4)


@construct("a 6, k 3", {"stem": "a, .", "one": "a, k", "two": "k, a", "scale": "a", "head": "., a"})
def einsum_patterns() -> Made:
    """An entry-wise product, a chain of matrices, a square matrix and its diagonal."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = torch.einsum("btd,d->btd", m.stem(x), m.scale).tanh()
        y = torch.einsum("btd,dk,ke->bte", x, m.one, m.two)
        square = torch.einsum("bti,btj->bij", x, y)
        return m.head(torch.einsum("bii->bi", square) + y.sum(1))

    net = Net(run, stem=nn.Linear(4, 6), one=p(6, 3), two=p(3, 6), scale=p(6), head=nn.Linear(6, 3))
    return net, *many(2, 5, 4)


@construct("stream 6", {"tokens": "., stream", "mix": "stream, stream"})
def tied() -> Made:
    """Embedding and logits have one table: what comes out lies in the stream that went in."""
    run = lambda m, ids: F.linear(m.mix(m.tokens(ids)).tanh(), m.tokens.weight)  # noqa: E731
    return Net(run, tokens=nn.Embedding(11, 6), mix=nn.Linear(6, 6)), *ids()


def ids(most: int = 11) -> tuple[tuple[Tensor], tuple[Tensor]]:
    return (torch.randint(0, most, (2, 5)),), (torch.randint(0, most, (3, 7)),)


@construct("h 6", {"bag": "., h", "head": "., h"})
def bag() -> Made:
    """Rows of a table summed by bag."""
    net = Net(
        lambda m, i: m.head(m.bag(i).tanh()),
        bag=nn.EmbeddingBag(11, 6, mode="sum"),
        head=nn.Linear(6, 3),
    )
    return net, *ids()


@construct("h 6", {"table": "., h", "head": "., h"})
def rows_summed() -> Made:
    """The same by hand, with a weight for each row."""
    run = lambda m, i: m.head((m.table(i) * i[..., None].sin()).sum(1).tanh())  # noqa: E731
    return Net(run, table=nn.Embedding(11, 6), head=nn.Linear(6, 3)), *ids()


def turned(how: str) -> Made:
    """A layer whose matrix is ``base`` times an orthogonal one that comes from a triangle."""
    ortho = parametrizations.orthogonal(nn.Linear(6, 6), orthogonal_map=how)
    return (
        Net(lambda m, x: m.head(m.ortho(x).tanh()), ortho=ortho, head=nn.Linear(6, 3)),
        (r(2, 6),),
        (r(3, 6),),
    )


ORTHO = "ortho.parametrizations.weight"
TURNED = {"ortho.bias": "h", f"{ORTHO}.original": "., .", f"{ORTHO}.0.base": "h, .", "head": "., h"}


@construct("h 6", TURNED)
def orthogonal_by_exponential() -> Made:
    """Rows and columns of the triangle are told apart by their numbers; those of the base are
    not."""
    return turned("matrix_exp")


@construct("h 6", TURNED)
def orthogonal_by_cayley() -> Made:
    """The same with a linear system."""
    return turned("cayley")
