"""The tensors of a state dict that the edges of a graph hold, or all that does not fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...checkpoints import Checkpoint
from ...errors import CheckpointError
from ._bits import real_parts, same_bits

_LISTED = 10  # differences of one kind that an error names


@dataclass(frozen=True)
class Expected:
    """A tensor as the architecture has it.

    Attributes:
        name: that its edges go by.
        names: all that it has.
        shape, dtype: of the traced network.
    """

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_complex(self) -> bool:
        return self.dtype.startswith("complex")


@dataclass(frozen=True)
class FittingTensors(Mapping[str, Tensor]):
    """Tensors under the names that edges go by, complex ones as real ones; read when asked for.

    Attributes:
        state: the state dict.
        names: for each tensor the name that the state dict has it under.
        batch: leading axes that all tensors have besides.
    """

    state: Mapping[str, Tensor]
    names: Mapping[str, str]
    batch: tuple[int, ...]

    def __getitem__(self, name: str) -> Tensor:
        return real_parts(self.state[self.names[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def fitting(expected: Sequence[Expected], state: Mapping[str, Tensor]) -> FittingTensors:
    """One real tensor for each that is expected; says all that is wrong at once.

    A lazy checkpoint stays lazy: its shapes and dtypes are known without reading.

    Raises:
        CheckpointError: tensors are missing, or have other shapes or other kinds of numbers; tied
            names have different values; stacked tensors disagree about their number.
    """
    problems = _Problems()
    names: dict[str, str] = {}
    batches: set[tuple[int, ...]] = set()
    for tensor in expected:
        there = [name for name in tensor.names if name in state]
        if not there:
            problems.missing.append(f"  missing  {tensor.name} {tensor.shape}")
            continue
        names[tensor.name] = there[0]
        facts = _Facts.of(state, there[0])
        batch = _batch(facts.shape, tensor.shape)
        if batch is None:
            line = f"  shape    {there[0]} is {facts.shape}, expected {tensor.shape}"
            problems.shapes.append(line)
        else:
            batches.add(batch)
        if wrong := facts.wrong_kind(tensor.is_complex):
            problems.kinds.append(f"  dtype    {there[0]} holds {wrong}")
        for other in there[1:]:
            if not same_bits(state[other], state[there[0]]):
                line = f"  tied     {other} and {there[0]} are one tensor here, but have different values"
                problems.tied.append(line)
    problems.refuse()
    if len(batches) > 1:
        raise CheckpointError(
            f"stacked tensors disagree about the number of checkpoints: {sorted(batches)}"
        )
    return FittingTensors(state, names, batches.pop() if batches else ())


def _batch(shape: tuple[int, ...], expected: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes that a tensor has before the expected ones, none or one; ``None`` if it has others."""
    if shape == expected:
        return ()
    if len(shape) == len(expected) + 1 and shape[1:] == expected:
        return shape[:1]
    return None


@dataclass(frozen=True)
class _Facts:
    """What is known of a tensor without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_meta: bool

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str) -> "_Facts":
        if isinstance(state, Checkpoint):
            return cls(tuple(state.shapes[name]), state.dtypes[name], False)
        tensor = state[name]
        return cls(tuple(tensor.shape), tensor.dtype, tensor.is_meta)

    def wrong_kind(self, complex_wanted: bool) -> str:
        """What it holds and what it should, "" if that is right."""
        is_right = self.dtype.is_complex if complex_wanted else self.dtype.is_floating_point
        if is_right and not self.is_meta:
            return ""
        what = "no data (meta device)" if self.is_meta else str(self.dtype)
        return f"{what}, expected {'complex' if complex_wanted else 'floating-point'} numbers"


class _Problems:
    """What does not fit, by kind."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.shapes: list[str] = []
        self.kinds: list[str] = []
        self.tied: list[str] = []

    def refuse(self) -> None:
        """Raise if there is anything."""
        kinds = (self.missing, self.shapes, self.kinds, self.tied)
        lines = [line for kind in kinds for line in _first(kind)]
        if lines:
            raise CheckpointError("checkpoint does not fit the architecture:\n" + "\n".join(lines))


def _first(lines: list[str]) -> list[str]:
    """The first lines, and how many there are besides."""
    more = len(lines) - _LISTED
    return lines if more <= 0 else [*lines[:_LISTED], f"  ... and {more} more"]
