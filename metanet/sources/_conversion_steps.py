"""Steps of a plan, on checkpoints: what they give is told without reading, and made when it is
asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint
from ..errors import CheckpointError
from ._transformers_loading import Described, Step

_KEPT = 4  # steps of which some results wait: weights and biases of a layer come in turns


class Forward:
    """One step from stored tensors to those of the module; ``made`` describes its results."""

    def __init__(self, step: Step, given: Checkpoint, module: Described) -> None:
        self.step, self.given, self.module = step, given, module
        try:
            self.made = step.forward(partial(_empty, given, None), module)
        except (AttributeError, IndexError, KeyError, RuntimeError, ValueError) as error:
            names = ", ".join(step.names()[:4])
            raise CheckpointError(
                f"checkpoint '{given.path}': {step.layer} can't be made of {names}: {error}"
            ) from error

    def __call__(self) -> dict[str, Tensor]:
        return self.step.forward(self.given.__getitem__, self.module)


class Backward:
    """One step from tensors of the module to stored ones; ``made`` describes its results."""

    def __init__(
        self,
        step: Step,
        names: list[str],
        given: Checkpoint,
        renamed: Mapping[str, str],
        stored: Described,
    ) -> None:
        self.step, self.names, self.given, self.stored = step, names, given, stored
        self.renamed = {name: renamed[name] for name in names}
        try:
            self.made = self._run(partial(_empty, given, self.renamed))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint '{given.path}': {step.names()[0]} can't be made again of {step.layer}: {error}"
            ) from error
        for name, tensor in self.made.items():
            if tensor.shape != stored.shapes[name]:
                raise CheckpointError(shape_error(given, name, tensor.shape, stored.shapes[name]))

    def _run(self, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
        return self.step.backward(self.names, read, self.stored)

    def __call__(self) -> dict[str, Tensor]:
        return self._run(lambda name: self.given[self.renamed[name]])


def _empty(given: Checkpoint, renamed: Mapping[str, str] | None, name: str) -> Tensor:
    """A tensor without data."""
    name = name if renamed is None else renamed[name]
    return torch.empty(given.shapes[name], dtype=given.dtypes[name], device="meta")


def shape_error(checkpoint: Checkpoint, name: str, shape: torch.Size, there: torch.Size) -> str:
    return (
        f"checkpoint '{checkpoint.path}' can't be written in the layout of its files: "
        f"{name} would be {tuple(shape)}, but is {tuple(there)} there"
    )


class Reader:
    """Reads by name. Results of a step that were not asked for yet are kept, of the last few steps.

    Args:
        reads: what gives a tensor that is taken as it is.
        steps: what gives it together with others.
        dtypes: to cast to.
    """

    def __init__(
        self,
        reads: Mapping[str, Callable[[], Tensor]],
        steps: Mapping[str, Any],
        dtypes: Mapping[str, torch.dtype],
    ) -> None:
        self.reads, self.steps, self.dtypes = dict(reads), dict(steps), dict(dtypes)
        self.kept: dict[int, dict[str, Tensor]] = {}

    def __call__(self, name: str) -> Tensor:
        tensor = self.reads[name]() if name in self.reads else self._made(name)
        return tensor.to(self.dtypes[name])

    def _made(self, name: str) -> Tensor:
        step = self.steps[name]
        waiting = self.kept.pop(id(step), {})
        if name not in waiting:
            waiting = step()
        tensor = waiting.pop(name)
        if waiting:
            self.kept[id(step)] = waiting
            while len(self.kept) > _KEPT:
                self.kept.pop(next(iter(self.kept)), None)
        # A part of something larger: its memory must go when the rest does.
        is_whole = tensor.untyped_storage().nbytes() <= tensor.nbytes
        if is_whole and tensor.is_contiguous():
            return tensor
        return tensor.clone(memory_format=torch.contiguous_format)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": {}}
