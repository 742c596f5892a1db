"""``device=``: which there are on this machine. What imports torch does so as it is called: the
checks of a command line need the names alone."""

from typing import TYPE_CHECKING

from ..errors import MetanetError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Names of devices that networks run on; a number may follow, ``cuda:1``."""

TRACING_DEVICES = (*DEVICES, "meta")
"""Names of devices that networks are traced on."""


def find_device(name: str, *, tracing: bool = False) -> "torch.device":
    """The device of a name; ``auto``: a graphics card if there is one.

    Args:
        name: one of :data:`DEVICES`.
        tracing: networks are traced there, not run over data. The device may be ``meta``, which has
            no values, and ``auto`` is the CPU: of one forward pass, a graphics card pays only for
            the verification of large networks.

    Raises:
        MetanetError: there is no such device here, or it has no values.
    """
    import torch

    if name == "auto":
        name = "cpu" if tracing else _fastest()
    choices = TRACING_DEVICES if tracing else DEVICES
    allowed = f"{', '.join(choices[:-1])} or {choices[-1]}"
    objection = unusable(name)
    if objection is not None:
        raise MetanetError(f"device={name} can't be used: {objection}. Choose {allowed}.")
    if name == "meta" and not tracing:
        raise MetanetError(f"device=meta has no values: choose {allowed}")
    return torch.device(name)


def unusable(name: str) -> str | None:
    """What PyTorch has against a device of this name; ``None`` if nothing."""
    import torch

    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        return str(error)
    return None


def _fastest() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
