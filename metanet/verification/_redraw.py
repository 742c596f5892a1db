"""Random parameters at which a network of any depth works, so that mistakes show.

Freshly initialised networks hide mistakes: zero biases, unit scales, residual branches that start
at zero.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_TABLE = re.compile(r"embed|token|pos|table|prompt|quer(y|ies)$")
# A mean outside is no value to stay near: uninitialised memory holds anything.
_NEAR_ZERO = 0.05
_ABSURD = 1e6


def redraw(
    state: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    model: nn.Module | None = None,
    gain: float = 1.0,
    offset: float = 0.5,
) -> dict[str, Tensor]:
    """Every floating-point or complex entry drawn anew, at the scale of a working network.

    Matrices and kernels at fan-in scale; embeddings and learned tokens at scale 1; vectors that sit
    around some value (scales around 1, temperatures, logarithms of decay rates) stay within some 40
    % of it, all other vectors (biases, residual scales that start at 0 or 1e-5) are normal around
    0; running variances positive. Real and imaginary part of a complex tensor are drawn as two
    tensors.

    Args:
        state: by state dict name; integer entries are passed on.
        generator: on the CPU, so that the same numbers come on every device.
        model: whose state it is: tells embeddings and convolutions apart where names and shapes do
            not.
        gain: of the matrices and kernels, relative to fan-in scale.
        offset: standard deviation of the vectors around 0.
    """
    modules = dict(model.named_modules()) if model is not None else {}
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if tensor.is_complex():
            parts = torch.view_as_real(tensor.resolve_conj()).unbind(-1)
            half = gain * 0.5**0.5
            new = [_drawn(p, leaf, modules.get(module), half, offset, generator) for p in parts]
            out[name] = torch.view_as_complex(torch.stack(new, -1))
        elif tensor.is_floating_point():
            out[name] = _drawn(tensor, leaf, modules.get(module), gain, offset, generator)
        else:
            out[name] = tensor
    return out


def _drawn(
    tensor: Tensor,
    leaf: str,
    module: nn.Module | None,
    gain: float,
    offset: float,
    generator: torch.Generator,
) -> Tensor:
    """One real tensor drawn anew, by the last part of its name and the module that has it."""
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    is_matrix = tensor.ndim >= 2 and (tensor.numel() > max(tensor.shape) or leaf == "weight")
    if leaf in ("running_var", "original0", "weight_g"):
        new = 0.5 + noise.abs()
    elif is_matrix:
        new = noise * _scale(leaf, tensor, module) * gain
    else:
        new = _vector(tensor, noise * offset, generator)
    return new.to(tensor)


def _vector(tensor: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Around its own values if these have one sign and are not tiny, else around 0."""
    old = tensor.detach().to("cpu", torch.float64)
    mean = float(old.mean())  # NaN of an empty one: noise, too
    size = float(old.square().mean().sqrt())
    if not (max(_NEAR_ZERO, 0.5 * size) <= abs(mean) < _ABSURD):
        return noise
    # uniform: a temperature or a scale must not change its sign by a rare large draw
    uniform = torch.rand(2, *old.shape, generator=generator, dtype=torch.float64)
    one, two = (uniform * 2 - 1).unbind(0)
    return old * (1 + 0.6 * one) + 0.2 * abs(mean) * two


def _scale(leaf: str, tensor: Tensor, module: nn.Module | None) -> float:
    """The standard deviation of a matrix, a kernel or an embedding."""
    # Linear(20, 10): 1 / sqrt(20); Conv2d(3, 8, 5): 1 / sqrt(3 * 5 * 5); Embedding: 1
    shape = tuple(tensor.shape)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return 1.0
    if _is_kernel(leaf, tensor, module):
        return math.prod(shape[1:]) ** -0.5
    is_named = leaf not in ("weight", "bias")
    if is_named and _TABLE.search(leaf):
        return 1.0
    if tensor.ndim == 2:
        return shape[1] ** -0.5
    # stacked experts (E, out, in), projections (in, heads, dims): either order occurs
    return max(shape) ** -0.5


def _is_kernel(leaf: str, tensor: Tensor, module: nn.Module | None) -> bool:
    """Whether all axes but the first are summed over."""
    if tensor.ndim > 3 or leaf.startswith("original"):
        return True
    if module is None:
        return leaf == "weight"
    return isinstance(module, nn.modules.conv._ConvNd)


def noise_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise as large as the tensor itself, of both parts where it is complex."""
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    noise = torch.randn(tensor.shape, generator=generator, dtype=dtype).to(tensor)
    return noise * tensor.abs().square().mean().sqrt()


@contextmanager
def calibrated(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """While active, running the model sets the running statistics of its norms near those of the
    data.

    Statistics that have nothing to do with the data turn a norm into a mere random scale, and a
    hundred of these in a row explode, vanish, or drive gates into saturation, where wrong
    relabellings no longer show.
    """

    def calibrate(module: Any, inputs: tuple[Any, ...]) -> None:
        mean, var = module.running_mean, module.running_var
        x = inputs[0] if inputs else None
        if not isinstance(x, Tensor) or x.ndim < 2:
            return
        if x.shape[1] != mean.numel() or not torch.isfinite(x).all():
            return
        x = x.detach().transpose(0, 1).flatten(1)
        spread = x.var(1, correction=0) + 0.1 * x.abs().square().mean() + 1e-12
        noise = torch.randn(2, mean.numel(), generator=generator, dtype=torch.float64).to(mean)
        mean.copy_((x.mean(1) + 0.3 * spread.sqrt() * noise[0]).view_as(mean))
        var.copy_((spread * (0.5 + noise[1].abs())).view_as(var))

    handles = []
    for module in model.modules():
        statistics = (getattr(module, name, None) for name in ("running_mean", "running_var"))
        if all(isinstance(each, Tensor) for each in statistics):
            handles.append(module.register_forward_pre_hook(calibrate))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
