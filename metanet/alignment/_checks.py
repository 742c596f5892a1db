"""Checkpoints that cannot be aligned are refused before anything is computed."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..checkpoints import check_plain
from ..errors import CheckpointError
from ..symmetry import SymmetrySpec
from ..tracing import is_integer
from ._pieces import STATISTICS


def checked(
    spec: SymmetrySpec, given: nn.Module | Mapping[str, Tensor], who: str
) -> Mapping[str, Tensor]:
    """A checkpoint that fits the architecture, as a mapping.

    Args:
        who: what to call it in messages.

    Raises:
        CheckpointError: it is an adapter alone, quantised, of another architecture (real where that
            is complex), or has NaN in its statistics.
    """
    state = given.state_dict() if isinstance(given, nn.Module) else given
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{who} must be a module or a mapping from names to tensors, got {type(state).__name__}"
        )
    check_plain(state, who, network=spec.tensors)
    _check_floating(spec, state, who)
    _check_complete(spec, state, who)
    _check_shapes(spec, state, who)
    _check_numbers(spec, state, who)
    return state


def _check_floating(spec: SymmetrySpec, state: Mapping[str, Tensor], who: str) -> None:
    for name, tensor in spec.tensors.items():
        if tensor.integer or name not in state:
            continue
        dtype = stored_dtype(state, name)
        if is_integer(dtype):
            raise CheckpointError(
                f"{who} is quantised ({name} is {dtype}): dequantise it to floating point first"
            )


def _check_complete(spec: SymmetrySpec, state: Mapping[str, Tensor], who: str) -> None:
    """Every tensor is there, a tied one under any of its names."""
    first_names = {n: t.tied_to or n for n, t in spec.tensors.items() if not t.integer}
    present = {first_names[n] for n in state if n in first_names}
    missing = [n for n, first in first_names.items() if first not in present]
    if not missing:
        return
    message = (
        f"{who} is of another architecture: it lacks {len(missing)} of {len(first_names)} tensors "
        f"({_three(missing)})"
    )
    extra = [n for n in state if n not in spec.tensors]
    if extra:
        message += f" and has others ({_three(extra)})"
    raise CheckpointError(message)


def _three(names: Sequence[str]) -> str:
    dots = ", ..." if len(names) > 3 else ""
    return ", ".join(names[:3]) + dots


def _check_shapes(spec: SymmetrySpec, state: Mapping[str, Tensor], who: str) -> None:
    wrong = [
        (name, shape, tensor.shape)
        for name, tensor in spec.tensors.items()
        if name in state and (shape := _shape(state, name)) != tensor.shape
    ]
    if not wrong:
        return
    name, shape, expected = wrong[0]
    others = f"; so do {len(wrong) - 1} others" if len(wrong) > 1 else ""
    raise CheckpointError(
        f"{who} does not fit the architecture: {name} is {shape}, expected {expected}{others}. "
        "Only networks of equal shapes can be aligned"
    )


def _check_numbers(spec: SymmetrySpec, state: Mapping[str, Tensor], who: str) -> None:
    """Complex where the architecture is; finite statistics. Weights are looked at when they are
    read."""
    for name in state:
        if name not in spec.tensors:
            continue
        dtype, is_complex = stored_dtype(state, name), spec.tensors[name].is_complex
        if dtype.is_complex != is_complex:
            kind = "complex" if is_complex else "real"
            raise CheckpointError(
                f"{who} does not fit the architecture: {name} is {dtype}, expected {kind} numbers"
            )
        if name.rpartition(".")[2] in STATISTICS:
            require_finite(state[name], name, who)


def require_finite(tensor: Tensor, name: str, who: str) -> None:
    """Raises CheckpointError if a value is NaN or infinite."""
    if not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{who}: {count:,} of {tensor.numel():,} values of {name} are NaN or infinite; "
            "a network that diverged cannot be aligned"
        )


def stored_dtype(given: Mapping[str, Tensor], name: str) -> torch.dtype:
    """The dtype of a tensor, without reading it where the checkpoint is lazy."""
    dtypes = getattr(given, "dtypes", None)
    return dtypes[name] if dtypes is not None else given[name].dtype


def _shape(given: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    shapes = getattr(given, "shapes", None)
    return tuple(shapes[name] if shapes is not None else given[name].shape)
