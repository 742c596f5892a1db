"""``device=``: which there are on this machine."""

import torch

from ..errors import MetanetError


def find_device(name: str) -> torch.device:
    """What networks run on; ``auto``: a graphics card if there is one.

    Raises:
        MetanetError: there is no such device here, or it has no values.
    """
    name = _fastest() if name == "auto" else name
    _check(name, "auto, cpu, cuda or mps")
    if name == "meta":
        raise MetanetError("device=meta has no values: choose auto, cpu, cuda or mps")
    return torch.device(name)


def find_tracing_device(name: str) -> str:
    """What a network is traced on; ``auto``: the CPU.

    Tracing is one forward pass: a graphics card pays only for the verification of large networks.

    Raises:
        MetanetError: there is no such device here.
    """
    if name == "auto":
        return "cpu"
    _check(name, "auto, cpu, cuda, mps or meta")
    return name


def unusable(name: str) -> str | None:
    """What PyTorch has against a device of this name; ``None`` if nothing."""
    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        return str(error)
    return None


def _check(name: str, choices: str) -> None:
    reason = unusable(name)
    if reason is not None:
        raise MetanetError(f"device={name} can't be used: {reason}. Choose {choices}.")


def _fastest() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
