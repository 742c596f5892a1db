"""Complex parameters and buffers in recordings, and the memory that complex tensors share with
their parts."""

import pytest
import torch
from torch import nn

import metanet
from metanet.tracing import record

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


def complex_matrix(seed: int) -> torch.Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


class Does(nn.Module):
    """``function(weight, x)`` with a complex weight."""

    def __init__(self, function, device="cpu") -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(complex_matrix(0).to(device)), function

    def forward(self, x):
        return self.function(self.weight, x)


def product(w, x):
    return x.to(w.dtype) @ w


def parts_of_the_weight(w, x):
    return x @ w.real + x.sin() @ w.imag


def written_through_parts(w, x):
    y = product(w, x)
    y.real.mul_(3)
    y.imag[:, 1:].add_(1)
    return y.abs()


def written_through_the_conjugate(w, x):
    y = product(w, x)
    y.conj().mul_(1j)
    y[0].conj().imag.add_(x[0])
    return y.real + y.imag


def negated_on_reading(w, x):
    part = product(w, x).conj().imag
    part[1] = x[0]
    return part.sin() + part.resolve_neg()


def pairs_written_as_complex(w, x):
    y = x.repeat(1, 2) * w.abs().sum()
    y.view(torch.complex128)[:, 0] = w[0, 0]
    torch.view_as_complex(y.unflatten(-1, (4, 2)))[:, 2:].mul_(1j)
    return y * 1


def complex_written_as_pairs(w, x):
    y = product(w, x)
    y.view(torch.float64)[:, ::2].add_(1)
    torch.view_as_real(y)[..., 1, 0].copy_(x[:, 0])
    return y.real + y.abs()


def windows_over_parts(w, x):
    y = product(w, x)
    torch.view_as_real(y).as_strided((3, 7), (8, 1)).mul_(2)
    return y.imag


def repeated_parts(w, x):
    y = product(w, x)
    whole = torch.view_as_real(y).expand(2, 3, 4, 2)
    whole[1].mul_(2)
    return whole.sum(0) * y.abs().unsqueeze(-1)


def repeated_conjugates(w, x):
    y = product(w, x)
    whole = y.conj().expand(2, 3, 4)
    whole[1].mul_(1j)
    return torch.view_as_real(whole.resolve_conj() + y)


def spectrum(w, x):
    z = torch.fft.fftshift(torch.fft.fft2(x), dim=-1) @ w.mH
    return torch.fft.irfft(z, n=6, norm="ortho") + torch.fft.hfft(z)


def short_time(w, x):
    z = torch.stft(
        x.flatten()[None].expand(2, -1), 4, return_complex=True, window=torch.ones(4, dtype=x.dtype)
    )
    return torch.istft(z * w[0, 0], 4, window=torch.ones(4, dtype=x.dtype))


def convolved(w, x):
    return nn.functional.conv1d(
        x.to(w.dtype)[None].expand(2, 3, 4), w[:3, :3, None], w[0, :3]
    ).angle()


PROGRAMS = [
    parts_of_the_weight, written_through_parts, written_through_the_conjugate, negated_on_reading,
    pairs_written_as_complex, complex_written_as_pairs, windows_over_parts, repeated_parts,
    repeated_conjugates, spectrum, short_time, convolved,
]  # fmt: skip
SHARED = {windows_over_parts, repeated_parts, repeated_conjugates}
"""Programs that write to memory in a way that no function tells: they must not seem to be
functions."""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_what_was_recorded_computes_the_same(program):
    trace = record(Does(program), (X,), {})
    assert trace.values[trace.parameters["weight"]].dtype == "complex128"
    if program in SHARED:
        assert any(op.call is None for op in trace.ops)
        return
    weight, other = complex_matrix(1), X.flip(0) + 0.1
    with torch.no_grad():
        want = program(weight.clone(), other.clone())
        got = trace.replay({"weight": weight}, other)[trace.outputs[0]]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


class Between(Does):
    """The same on hidden units."""

    def __init__(self, function) -> None:
        super().__init__(function)
        self.first = nn.Linear(4, 4, dtype=torch.float64)

    def forward(self, x):
        return super().forward(self.first(x).sin())


MOVES = {
    parts_of_the_weight, written_through_parts, pairs_written_as_complex, complex_written_as_pairs, *SHARED,
}  # fmt: skip
"""Programs after which some hidden units, or rows of the weight, may still change places."""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_hidden_units_move_unless_they_are_told_apart(program):
    network = Between(program)
    arch = metanet.trace(network, X)
    assert bool(arch.spec.groups) == (program in MOVES)
    assert metanet.verify(network, arch.spec, X).ok


@pytest.mark.parametrize(
    "program", [parts_of_the_weight, written_through_parts, spectrum], ids=lambda p: p.__name__
)
def test_the_meta_device_gives_the_same_recording(program):
    real, meta = (record(Does(program, device), (X,), {}) for device in ("cpu", "meta"))
    assert [op.name for op in real.ops] == [op.name for op in meta.ops]
    assert [v.shape for v in real.values] == [v.shape for v in meta.values]


def test_conjugated_parameters_are_read_as_their_numbers():
    trace = record(Does(parts_of_the_weight), (X,), {})
    lazy = complex_matrix(1).conj()
    got = trace.replay({"weight": lazy}, X)[trace.outputs[0]]
    torch.testing.assert_close(got, parts_of_the_weight(lazy.resolve_conj(), X), rtol=0, atol=0)


class Buffered(nn.Module):
    """A complex buffer, and a real view of its memory that no state dict names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("gain", torch.ones(6, dtype=torch.complex64))
        self.pairs = torch.view_as_real(self.gain)

    def forward(self, x):
        return self.last(self.first(x) * self.pairs[:, 0] + (self.first(x) * self.gain).imag)


def test_memory_seen_from_outside_as_other_numbers_stays_where_it_is():
    network = Buffered()
    arch = metanet.trace(network, X.float())
    assert arch.spec.tensors["gain"].dtype == "complex64"
    assert not arch.spec.groups
    assert metanet.verify(network, arch.spec, X.float()).change == 0
