"""Checkpoints by the names of a network, whatever the names of their files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint, check_plain, report_nonfinite, shared_memory
from ..errors import CheckpointError
from ..sources import in_memory
from ..tracing import is_integer


def entries(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a module's state dict has: tensors by name.

    And for every name the first that it is tied to.

    Args:
        model: on any device, meta included.
    """
    tensors = {n: t for n, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    first: dict[int, str] = {}
    return tensors, {n: first.setdefault(id(t), n) for n, t in tensors.items()}


def as_checkpoint(given: nn.Module | Mapping[str, Tensor], who: str) -> Checkpoint:
    """A module's or a mapping's tensors as a checkpoint.

    It shares their memory. A checkpoint is returned as it is.

    Args:
        given: entries that are no tensors are left out.
        who: what to call it in messages.

    Raises:
        CheckpointError: it is something else.
    """
    if isinstance(given, Checkpoint):
        return given
    named = entries(given)[0] if isinstance(given, nn.Module) else given
    if not isinstance(named, Mapping):
        raise CheckpointError(
            f"{who} must be a module or a mapping from names to tensors, got {type(given).__name__}"
        )
    tensors = {n: t.detach() for n, t in named.items() if isinstance(t, Tensor)}
    shapes = {n: t.shape for n, t in tensors.items()}
    dtypes = {n: t.dtype for n, t in tensors.items()}
    return Checkpoint(Path(who), tensors.__getitem__, shapes, dtypes, tied=shared_memory(tensors))


def fit_to(model: nn.Module, given: nn.Module | Mapping[str, Tensor], who: str = "") -> Checkpoint:
    """A checkpoint by the names of a network, in their order; no data is read.

    Names and layouts that transformers changes as it loads a file are brought to the module's
    (:func:`metanet.sources.in_memory`). Integer buffers may be missing, and so may all but one of
    the names of a tied tensor.

    Args:
        model: the network; its values do not matter, it may be on the meta device.
        given: a module, a state dict or a checkpoint.
        who: what to call it in messages where it has no path.

    Raises:
        CheckpointError: names, shapes or kinds of dtype differ from the network's, or it holds no
            plain weights (:func:`metanet.checkpoints.check_plain`).
    """
    expected, tied = entries(model)
    stored = as_checkpoint(given, who)
    check_plain(stored, network=expected)
    converted = in_memory(stored, model)
    names = tuple(converted)
    # a counter that the file lacks, "bn.num_batches_tracked", is no gap; a prefix may stand before
    absent = {
        name
        for name, tensor in expected.items()
        if is_integer(tensor.dtype) and not any(stored_as.endswith(name) for stored_as in names)
    }
    needed = {name: tensor for name, tensor in expected.items() if name not in absent}
    return converted.fit(needed, tied=tied)


def check_values(model: nn.Module, fitted: Checkpoint) -> None:
    """Read a checkpoint once and refuse what no path leads to.

    Raises:
        CheckpointError: NaN or infinite values, or tied names with different values.
    """
    if broken := report_nonfinite(fitted):
        name, count = next(iter(broken.items()))
        others = f", and values of {len(broken) - 1} other tensors" if len(broken) > 1 else ""
        raise CheckpointError(
            f"checkpoint '{fitted.path}': {count:,} of {fitted.shapes[name].numel():,} values "
            f"of {name} are NaN or infinite{others}; there is no path to a network that diverged"
        )
    check_tied(model, fitted)


def check_tied(model: nn.Module, fitted: Checkpoint) -> None:
    """Refuse tied names with different values: one of them would be lost.

    Args:
        model: the network, which says what is tied.
        fitted: a checkpoint by its names; nothing but the tied tensors is read.

    Raises:
        CheckpointError: two names are one tensor in the network, and two in the checkpoint.
    """
    for name, first in entries(model)[1].items():
        if name != first and name in fitted and not torch.equal(fitted[name], fitted[first]):
            raise CheckpointError(
                f"checkpoint '{fitted.path}': {name} and {first} differ, but are one tensor in the network"
            )
