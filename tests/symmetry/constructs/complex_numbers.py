"""Complex gains and matrices, Fourier operators, states that rotate, and pairs of real numbers read
as complex ones.

Real and imaginary part are told apart, and so are the frequencies of a spectrum; neurons move as
they do in real networks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._construct import Made, Net, construct, images, many, p, r
from .heads import join, split


def z(*shape: int) -> nn.Parameter:
    """A random complex parameter."""
    return nn.Parameter(torch.randn(*shape, dtype=torch.cfloat))


def waves(channels: int, length: int = 8) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """Two batches of signals of other lengths."""
    return (r(2, channels, length),), (r(3, channels, length + 4),)


@construct("h 8", {"inp": "h, .", "gain": "h", "out": "., h"})
def complex_gain() -> Made:
    """Uniform when traced, which is nothing that the spec may build upon."""
    gain = nn.Parameter(torch.ones(8, dtype=torch.cfloat))
    return Net(
        lambda m, x: m.out((m.inp(x) * m.gain).abs()), inp=nn.Linear(3, 8), gain=gain, out=nn.Linear(8, 2)
    ), *many(6, 3)  # fmt: skip


@construct("h 8", {"inp": "h, .", "turn": "h", "out": "., h"})
def complex_buffer() -> Made:
    """A buffer acts as a parameter does; conjugated on reading."""
    return Net(
        lambda m, x: m.out((m.inp(x) * m.turn).conj().imag.relu()), inp=nn.Linear(3, 8),
        turn=torch.ones(8, dtype=torch.cfloat), out=nn.Linear(8, 2),
    ), *many(6, 3)  # fmt: skip


@construct("a 6, b 5", {"lift": "a, .", "w": "a, b, .", "skip": "b, a", "head": "., b"})
def fourier_operator() -> Made:
    """The lowest frequencies through matrices of their own, beside a convolution (Li et al.
    2020)."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.lift(x)
        modes = torch.einsum("bix,iox->box", torch.fft.rfft(x)[..., :3], m.w)
        return m.head(F.gelu(torch.fft.irfft(modes, n=x.shape[-1]) + m.skip(x)))

    layers = {"lift": nn.Conv1d(3, 6, 1), "skip": nn.Conv1d(6, 5, 1), "head": nn.Conv1d(5, 2, 1)}
    return Net(run, w=z(6, 5, 3), **layers), *waves(3)


@construct("a 5, b 6", {"lift": "a, .", "low high": "a, b, .", "head": "., b"})
def fourier_operator_on_images() -> Made:
    """Two corners of the spectrum, written into zeros."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(m.lift(x))
        out = torch.zeros(x.shape[0], 6, *spectrum.shape[-2:], dtype=torch.cfloat)
        out[:, :, :2, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :2, :3], m.low)
        out[:, :, -2:, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -2:, :3], m.high)
        return m.head(torch.fft.irfft2(out, s=x.shape[-2:]).relu())

    return Net(
        run, lift=nn.Conv2d(3, 5, 1), low=z(5, 6, 2, 3), high=z(5, 6, 2, 3), head=nn.Conv2d(6, 2, 1)
    ), *images()


@construct("c 6", {"lift": "c, .", "gain": "c, .", "head": "., c"})
def spectral_gain() -> Made:
    """Every channel times a gain for each frequency, twice (global filters)."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.lift(x)
        for _ in range(2):
            spectrum = torch.fft.fft(y, norm="ortho") * F.pad(m.gain, (0, y.shape[-1] - 8))
            y = torch.fft.ifft(
                torch.fft.ifftshift(torch.fft.fftshift(spectrum, -1), -1), norm="ortho"
            ).real.tanh()
        return m.head(y)

    return Net(run, lift=nn.Conv1d(3, 6, 1), gain=z(6, 8), head=nn.Conv1d(6, 2, 1)), *waves(3)


@construct("a 6, b 5", {"one": "a, .", "bias": "a", "two": "b, a", "out": "., b*2"})
def complex_layers() -> Made:
    """Complex matrices and biases, a gate by size, and both parts side by side."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.one(x.to(torch.cfloat))
        y = y * (y.abs() + m.bias).relu() / (y.abs() + 0.1)
        return m.out(torch.view_as_real(m.two(y)).flatten(-2).tanh())

    layers = {
        "one": nn.Linear(4, 6, dtype=torch.cfloat),
        "two": nn.Linear(6, 5, dtype=torch.cfloat),
    }
    return Net(run, bias=p(6), out=nn.Linear(10, 3), **layers), *many(6, 4)


@construct("a 6, b 5", {"one": "a, .", "two": "b, a", "out": "., b | b"})
def complex_convolutions() -> Made:
    """Which PyTorch makes of three real ones."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.two(torch.view_as_complex(F.relu(torch.view_as_real(m.one(x.to(torch.cfloat))))))
        return m.out(torch.cat([y.real, y.imag], 1))

    layers = {
        "one": nn.Conv1d(3, 6, 3, padding=1, dtype=torch.cfloat),
        "two": nn.Conv1d(6, 5, 3, dtype=torch.cfloat),
    }  # fmt: skip
    return Net(run, out=nn.Conv1d(10, 2, 1), **layers), *waves(3)


@construct(
    "stream 5, state 4",
    {
        "stem": "stream, .", "decay angle": "state", "b": "state, stream", "c": "stream, state",
        "d": "stream",
        "head": "., stream",
    },
)  # fmt: skip
def linear_recurrent_unit() -> Made:
    """A diagonal complex state, of which the real part is read (Orvieto et al. 2023)."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        rate = torch.exp(torch.complex(-m.decay.exp(), m.angle))
        h, out = torch.zeros(x.shape[0], 4, dtype=torch.cfloat), []
        for t in range(x.shape[1]):
            h = rate * h + x[:, t].to(torch.cfloat) @ m.b.mT
            out.append((h @ m.c.T).real + m.d * x[:, t])
        return m.head(torch.stack(out, 1).tanh())

    parts = {"decay": p(4), "angle": p(4), "b": z(4, 5), "c": z(5, 4), "d": p(5)}
    return Net(run, stem=nn.Linear(3, 5), head=nn.Linear(5, 2), **parts), *many(2, 5, 3)


@construct(
    "h 5, state 4 per h",
    {"stem": "h, .", "a": "h, state", "c": "h, state, .", "step": "h", "skip": "h", "head": "., h"},
)
def state_space_by_fourier() -> Made:
    """S4D: states of every channel's own make a kernel, which is convolved by Fourier transforms
    (Gu et al. 2022)."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        u, n = m.stem(x).mT, x.shape[1]
        a, c, step = (
            -m.a.real.exp() + 1j * m.a.imag,
            torch.view_as_complex(m.c),
            m.step.exp()[:, None],
        )
        powers = torch.exp((a * step)[..., None] * torch.arange(n))
        kernel = 2 * torch.einsum("hn,hnl->hl", c * (torch.exp(a * step) - 1) / a, powers).real
        spectrum = torch.fft.rfft(u, n=2 * n) * torch.fft.rfft(kernel, n=2 * n)
        return m.head(F.gelu(torch.fft.irfft(spectrum, n=2 * n)[..., :n] + u * m.skip[:, None]).mT)

    parts = {"a": z(5, 4), "c": p(5, 4, 2), "step": p(5), "skip": p(5)}
    return Net(run, stem=nn.Linear(3, 5), head=nn.Linear(5, 2), **parts), *many(2, 6, 3)


@construct(
    "heads 2, qk 3 per heads, vo 4 per heads",
    {"q k": "heads*qk, .", "v": "heads*vo, .", "o": "., heads*vo"},
)
def complex_attention() -> Made:
    """Scores are the real parts of products with conjugates."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (split(layer(x.to(torch.cfloat))) for layer in (m.q, m.k, m.v))
        return m.o(join((q @ k.mH).real.softmax(-1).to(torch.cfloat) @ v)).abs()

    def layer(inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs, dtype=torch.cfloat)

    return Net(run, q=layer(5, 6), k=layer(5, 6), v=layer(5, 8), o=layer(8, 5)), *many(2, 5, 5)


@construct(
    "a 6, b 5",
    {"stem": "a, .", "pairs": "b, a, .", "size angle": "b", "real imaginary": "b", "head": "., b"},
)
def complex_of_real_parts() -> Made:
    """Complex numbers made of real parameters: pairs, parts, lengths and angles."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x).to(torch.cfloat) @ torch.view_as_complex(m.pairs).T
        y = y * torch.polar(m.size, m.angle) + torch.complex(m.real, m.imaginary)
        return m.head(y.angle() + y.sgn().real)

    parts = {"pairs": p(5, 6, 2), "size": p(5), "angle": p(5), "real": p(5), "imaginary": p(5)}
    return Net(run, stem=nn.Linear(4, 6), head=nn.Linear(5, 2), **parts), *many(6, 4)


@construct("a 6, b 5", {"stem": "a, .", "w": "b, a", "head": "., b | b"})
def parts_as_weights() -> Made:
    """A complex matrix whose parts are two real ones."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        return m.head(torch.cat([F.linear(x, m.w.real).tanh(), F.linear(x, m.w.imag)], -1))

    return Net(run, stem=nn.Linear(4, 6), w=z(5, 6), head=nn.Linear(10, 2)), *many(6, 4)
