"""Writing a construct down: a module made in place, its inputs, and its truth in a few words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metanet.symmetry import SymmetrySpec, TensorAxes
from symmetry.truth import Truth

Made = tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]


class Net(nn.Module):
    """Modules, parameters and buffers by name, and a function of them: ``run(net, *inputs)``."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


@dataclass(frozen=True)
class Construct:
    """One construct.

    Attributes:
        make: builds the module with two examples of its inputs, of other sizes where it allows
            them.
        groups: as text, ``"heads 2, qk 3 per heads"``.
        tensors: names of tensors, or of modules, with their axes; of buffers of integers those that
            move. A module's vectors have the first of the axes that its matrix has; axes that are
            not written (of kernels) are fixed.
    """

    make: Callable[[], Made]
    groups: str
    tensors: Mapping[str, str]

    def spec(self, model: nn.Module) -> SymmetrySpec:
        """The truth as a spec of the module."""
        named = {name for names in self.tensors for name in names.split()}
        state = model.state_dict(keep_vars=True)
        entries = {
            n: t for n, t in state.items() if t.is_floating_point() or t.is_complex() or n in named
        }
        written: dict[str, str] = {}
        for names, text in self.tensors.items():
            for name in names.split():
                own = [n for n in entries if n == name or n.rpartition(".")[0] == name]
                assert own, f"no tensor or module {name!r}; there are {', '.join(entries)}"
                written |= {n: _fit(text, entries[n].ndim) for n in own}
        truth = Truth(lambda: pytest.fail("made elsewhere"), groups_of(self.groups), written)
        assert written.keys() == entries.keys(), (
            f"not written down: {sorted(entries.keys() - written.keys())}"
        )
        spec = truth.build({n: t for n, t in entries.items() if t.ndim})
        numbers = {
            n: TensorAxes(shape=(), dtype="float32", axes=())
            for n, t in entries.items()
            if not t.ndim
        }
        return SymmetrySpec(spec.groups, {**spec.tensors, **numbers})


def _fit(text: str, ndim: int) -> str:
    axes = text.split(",")
    return axes[0] if ndim == 1 else ", ".join([*axes, *["."] * (ndim - len(axes))])


def groups_of(text: str) -> dict[str, tuple[int, tuple[str, ...]]]:
    """``"heads 2, qk 3 per heads"`` as name -> (size, keys)."""
    out = {}
    for words in map(str.split, filter(None, text.split(","))):
        assert len(words) == 2 or words[2] == "per", f"cannot read {' '.join(words)!r}"
        out[words[0]] = (int(words[1]), tuple(words[3:]))
    return out


CONSTRUCTS: dict[str, Construct] = {}


def construct(
    groups: str, tensors: Mapping[str, str]
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register a function that makes a module under its name, with its truth."""

    def add(make: Callable[[], Made]) -> Callable[[], Made]:
        assert make.__name__ not in CONSTRUCTS, f"{make.__name__} is written twice"
        CONSTRUCTS[make.__name__] = Construct(make, groups, tensors)
        return make

    return add


def r(*shape: int) -> Tensor:
    """Random numbers."""
    return torch.randn(*shape)


def p(*shape: int) -> nn.Parameter:
    """A random parameter."""
    return nn.Parameter(torch.randn(*shape))


def many(*shape: int) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """Two inputs: of the given shape, and with one more in the batch and two more behind it (all
    but the last axis)."""
    longer = (shape[0] + 1, *(n + 2 for n in shape[1:-1]), shape[-1])
    return (r(*shape),), (r(*longer),)


def images(channels: int = 3, size: int = 8, grow: int = 4) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """Two batches of images of other sizes."""
    return (r(2, channels, size, size),), (r(3, channels, size + grow, size + grow),)
