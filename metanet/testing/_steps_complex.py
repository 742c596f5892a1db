"""Steps of random programs that compute with complex numbers on the way; what they take and give is
real."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._programs import Draw, Run, State, some_axis, step

Read = Callable[[Tensor], Tensor]


def complex_parameter(draw: Draw, *shape: int) -> str:
    """A new complex parameter; as often as not uniform, or of one part alone, as fresh ones are."""
    name = f"p{len(draw.parameters)}"
    parts = torch.randn(*shape, 2, generator=draw.generator) * max(1, shape[-1]) ** -0.5
    start = draw.pick("random", "random", "ones", "real")
    if start == "ones":
        parts = torch.tensor([1.0, 0.0]).expand(*shape, 2).clone()
    elif start == "real":
        parts[..., 1] = 0
    draw.parameters[name] = nn.Parameter(torch.view_as_complex(parts))
    return name


def reading(draw: Draw) -> Read:
    """One of the ways to make real numbers of complex ones, of the same shape."""
    return draw.pick(
        torch.abs, torch.real, torch.imag, lambda z: z.conj().imag, lambda z: z.real * z.imag,
        lambda z: (z / (z.abs() + 0.5)).real, lambda z: (z * z.conj()).real,
        lambda z: torch.view_as_real(z).sum(-1),
    )  # fmt: skip


def as_complex(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.complex64))


@step
def complex_gain(draw: Draw, tensors: list[Tensor]) -> Run:
    """A complex parameter along some of the axes, added or multiplied."""
    i = draw.tensor(tensors)
    shape = [n if a and draw.below(2) else 1 for a, n in enumerate(tensors[i].shape)]
    w, f, read = complex_parameter(draw, *shape), draw.pick(torch.add, torch.mul), reading(draw)
    return lambda p, t: read(f(t[i], p[w]))


@step
def complex_linear(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A complex layer on the last axis, of one tensor or of two as real and imaginary part."""
    i, j = draw.tensor(tensors), draw.tensor(tensors)
    if tensors[i].ndim < 2:
        return None
    both = tensors[i].shape == tensors[j].shape and tensors[i].dtype == tensors[j].dtype
    out, width, read = draw.pick(4, 6), tensors[i].shape[-1], reading(draw)
    w, b = complex_parameter(draw, out, width), complex_parameter(draw, out)

    def run(p: State, t: list[Tensor]) -> Tensor:
        z = torch.complex(t[i], t[j]) if both else as_complex(t[i])
        return read(F.linear(z, p[w], p[b]))

    return run


@step
def complex_pairs(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Neighbours on the last axis as one complex number, turned, and read as pairs again."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim < 2 or x.shape[-1] % 2:
        return None
    shape = [
        n if a and draw.below(2) else 1 for a, n in enumerate((*x.shape[:-1], x.shape[-1] // 2))
    ]
    w, viewed = complex_parameter(draw, *shape), draw.pick(True, False)

    def run(p: State, t: list[Tensor]) -> Tensor:
        pairs = t[i].unflatten(-1, (-1, 2)).contiguous()
        z = (
            pairs.flatten(-2).view(as_complex(pairs[:0]).dtype)
            if viewed
            else torch.view_as_complex(pairs)
        )
        return torch.view_as_real(z * p[w]).flatten(-2)

    return run


@step
def complex_product(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """The product of a tensor with the conjugate transpose of what a complex gain makes of it."""
    i = draw.tensor(tensors)
    if tensors[i].ndim < 3:
        return None
    w, read = complex_parameter(draw, tensors[i].shape[-1]), reading(draw)
    return lambda p, t: read(as_complex(t[i]) @ (t[i] * p[w]).mH)


@step
def complex_write(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A part of a complex tensor, or a stretch of its conjugate, written in place."""
    i = draw.tensor(tensors)
    a = some_axis(draw, tensors[i])
    if a is None:
        return None
    w, read = complex_parameter(draw, tensors[i].shape[-1]), reading(draw)
    start, how = draw.below(tensors[i].shape[a]), draw.below(3)

    def run(p: State, t: list[Tensor]) -> Tensor:
        z = t[i] * p[w]
        if how == 0:
            z.real.mul_(t[i])
        elif how == 1:
            z.narrow(a, start, 1).conj().mul_(2j)
        else:
            z.conj().imag.narrow(a, 0, start + 1).add_(1)
        return read(z)

    return run


@step
def spectral_convolution(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """Frequencies along one axis, the lowest of which go through matrices or gains of their own
    (Fourier operators)."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3:
        return None
    along = draw.pick(1, 2)
    modes, width, n = min(3, x.shape[along] // 2 + 1), x.shape[3 - along], x.shape[along]
    mixes, shifted = draw.pick(True, False), draw.pick(True, False)
    out = draw.pick(3, 4) if mixes else width
    w = (
        complex_parameter(draw, width, out, modes)
        if mixes
        else complex_parameter(draw, width, modes)
    )

    def run(p: State, t: list[Tensor]) -> Tensor:
        spectrum = torch.fft.rfft(t[i].movedim(along, -1), norm="ortho")[..., :modes]
        if shifted:
            spectrum = torch.fft.ifftshift(torch.fft.fftshift(spectrum, -1), -1)
        spectrum = torch.einsum("bix,iox->box", spectrum, p[w]) if mixes else spectrum * p[w]
        return torch.fft.irfft(spectrum, n=n, norm="ortho").movedim(-1, along)

    return run


@step
def complex_state(draw: Draw, tensors: list[Tensor]) -> Run | None:
    """A diagonal complex state over the second axis, of which the real part is read."""
    i = draw.tensor(tensors)
    x = tensors[i]
    if x.ndim != 3 or x.shape[1] > 6:
        return None
    size, width = draw.pick(3, 4), x.shape[-1]
    length, angle = draw.parameter(size), draw.parameter(size)
    b, c = complex_parameter(draw, size, width), complex_parameter(draw, width, size)

    def run(p: State, t: list[Tensor]) -> Tensor:
        rate = torch.polar(torch.sigmoid(p[length]), p[angle])
        state: Any = 0  # before the first step; a tensor from then on
        read = []
        for at in range(t[i].shape[1]):
            state = rate * state + as_complex(t[i][:, at]) @ p[b].mT
            read.append((state @ p[c].mT).real)
        return torch.stack(read, 1)

    return run
