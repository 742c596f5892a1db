"""Checkpoints that cannot be aligned are refused before anything is computed."""

from collections.abc import Mapping

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
    if isinstance(given, nn.Module):
        given = given.state_dict()
    if not isinstance(given, Mapping):
        raise CheckpointError(
            f"{who} must be a module or a mapping from names to tensors, got {type(given).__name__}"
        )
    names = list(given)
    weights = {n: t for n, t in spec.tensors.items() if not t.integer}
    tied = {n: t.tied_to or n for n, t in weights.items()}
    present = {tied[n] for n in names if n in tied}
    missing = [n for n, first in tied.items() if first not in present]
    check_plain(given, who, network=spec.tensors)
    odd = [n for n in weights if n in given and is_integer(stored_dtype(given, n))]
    if odd:
        example = f"{odd[0]} is {stored_dtype(given, odd[0])}"
        raise CheckpointError(
            f"{who} is quantised ({example}): dequantise it to floating point first"
        )
    if missing:
        extra = [n for n in names if n not in spec.tensors]
        raise CheckpointError(
            f"{who} is of another architecture: it lacks {len(missing)} of {len(weights)} tensors "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})"
            + (
                f" and has others ({', '.join(extra[:3])}{', ...' if len(extra) > 3 else ''})"
                if extra
                else ""
            )
        )
    wrong = [
        (n, _shape(given, n), t.shape)
        for n, t in spec.tensors.items()
        if n in given and _shape(given, n) != t.shape
    ]
    if wrong:
        name, shape, expected = wrong[0]
        more = f"; so do {len(wrong) - 1} others" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{who} does not fit the architecture: {name} is {shape}, expected {expected}{more}. "
            "Only networks of equal shapes can be aligned"
        )
    for name in names:
        if (
            name in spec.tensors
            and stored_dtype(given, name).is_complex != spec.tensors[name].is_complex
        ):
            kind = "complex" if spec.tensors[name].is_complex else "real"
            raise CheckpointError(
                f"{who} does not fit the architecture: {name} is {stored_dtype(given, name)}, "
                f"expected {kind} numbers"
            )
        if name in spec.tensors and name.rpartition(".")[2] in STATISTICS:
            require_finite(given[name], name, who)
    return given


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
