"""How the networks of an architecture are built again, whoever asks and whenever."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sample_inputs(
    shape: Sequence[int], bounds: Sequence[float] = (0.0, 1.0), batch: int = 2
) -> Float[Tensor, "batch ..."]:
    """Inputs of ``shape`` each, the same random ones every time, uniform between the bounds.

    >>> sample_inputs((3, 8, 8), batch=4).shape
    torch.Size([4, 3, 8, 8])

    Args:
        shape: of one sample.
        bounds: smallest and largest value.
        batch: how many samples.

    Returns:
        ``(batch, *shape)``, float32 on the CPU.
    """
    low, high = bounds
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, *shape, generator=generator) * (high - low) + low


@dataclass(frozen=True)
class Blueprint:
    """A factory of networks with its arguments, and what its networks take: plain data.

    >>> Blueprint("metanet.zoo.networks:mlp", {"widths": [16]}, input_shape=(1, 8, 8)).name
    'mlp'

    Args:
        ref: the factory, ``package.module:factory`` (or ``timm:NAME``, ``hf:NAME``).
        arch_args: its keyword arguments, plain JSON.
        input_shape: of one sample.
        input_range: smallest and largest input value that the networks were made for.
        name: in the zoo; what stands behind the colon of ``ref`` when left out.
    """

    ref: str
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: Sequence[int] = ()
    input_range: Sequence[float] = (0.0, 1.0)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.ref.rpartition(":")[2])

    def build(self) -> nn.Module:
        """A freshly initialised network, in evaluation mode.

        Raises:
            MetanetError: there is no such factory, or it does not take these arguments.
        """
        from ..sources import load_source

        return load_source(self.ref, **self.arch_args).eval()

    def entry(self) -> dict[str, Any]:
        """What files say of an architecture, plain JSON: see :class:`ArchitectureEntry`."""
        return {
            "ref": self.ref,
            "arch_args": dict(self.arch_args),
            "input_shape": [int(size) for size in self.input_shape],
            "input_range": [float(bound) for bound in self.input_range],
        }
