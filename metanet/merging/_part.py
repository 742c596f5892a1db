"""What merge methods are given: one tensor of all models, or, before the first tensor, the whole
task."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..checkpoints import Checkpoint
from ..errors import MetanetError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Part:
    """One floating or complex tensor of every model that takes part, ``n`` in all.

    Attributes:
        name: what the result is called.
        tensors: of one shape, in the dtype that is computed in (float32 or wider), on the computing
            device; complex ones as real ones with a last axis of 2. They belong to the caller: a
            method must not change them in place.
        base: the base's, likewise; ``None`` if there is none.
        numbers: which of the models these are, from 0 on: all of them, save in slices.
        seed: of the merge.
        prepared: what the method's ``prepare`` returned.
    """

    name: str
    tensors: tuple[Tensor, ...]
    base: Tensor | None = None
    numbers: tuple[int, ...] = ()
    seed: int = 0
    prepared: Any = None

    @cached_property
    def deltas(self) -> tuple[Tensor, ...]:
        """What every model changed of the base: its task vector (Ilharco et al. 2023,
        https://arxiv.org/abs/2212.04089)."""
        return tuple(tensor - self.origin for tensor in self.tensors)

    @property
    def origin(self) -> Tensor:
        """The base, where a method needs one.

        Raises:
            MetanetError: there is none.
        """
        if self.base is None:
            raise MetanetError(
                f"{self.name}: no base was given, so that there is nothing to take differences to"
            )
        return self.base

    def generator(self, model: int) -> torch.Generator:
        """Random numbers of this tensor of one model: a matter of seed, name and model alone.

        So neither the order of the tensors nor a merge that was stopped and resumed changes what is
        drawn.
        """
        number = self.numbers[model] if self.numbers else model
        digest = hashlib.sha256(f"{self.seed} {number} {self.name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


@dataclass(frozen=True)
class Problem:
    """What a method may look at before the first tensor is merged.

    Attributes:
        models: two or more checkpoints (one for methods inside one model) by the same names,
            aligned already.
        base: the base, by the same names.
        seed: of everything random.
        device: where to compute.
        arch: the architecture, for methods that read the network's structure.
        model: the module, for methods that run it.
        data: batches, for methods that read them.
        loss: ``loss(outputs, target)``; ``None`` goes by the kind of target.
        progress: whether to show bars.
        report: what there is to tell of the merge, numbers or short texts by name: it goes to the
            result's ``report``, the model card and ``metrics.json``. Methods add to it.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None = None
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    arch: Architecture | None = None
    model: nn.Module | None = None
    data: Iterable[Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    progress: bool = False
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> nn.Module:
        """The module, where a method runs it; MetanetError if there is none."""
        return _needed("model", self.model)

    @property
    def batches(self) -> Iterable[Any]:
        """The data, where a method reads it; MetanetError if there is none."""
        return _needed("data", self.data)

    @property
    def structure(self) -> Architecture:
        """The architecture, where a method reads it; MetanetError if there is none."""
        return _needed("arch", self.arch)

    @property
    def origin(self) -> Checkpoint:
        """The base, where a method needs one; MetanetError if there is none."""
        return _needed("base", self.base)


def _needed(option: str, value: Value | None) -> Value:
    if value is None:
        raise MetanetError(f"this needs {option}=...")
    return value
