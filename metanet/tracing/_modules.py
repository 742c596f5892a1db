"""What is no module that can be recorded, and what to give instead."""

from typing import Any

import torch
from torch import nn

from ..errors import TraceError


def check_module(model: Any) -> None:
    """Refuse what is no module, and modules that PyTorch runs out of sight.

    Raises:
        TraceError: with the way out.
    """
    if isinstance(model, torch.export.ExportedProgram):
        raise TraceError(
            "expected a torch.nn.Module to trace, got ExportedProgram: give program.module()"
        )
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TraceError(f"expected a torch.nn.Module to trace, got {kind}: {_way_out(model)}")
    scripted = [
        name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)
    ]
    if scripted:
        where = f"its module {scripted[0]!r}" if scripted[0] else "it"
        raise TraceError(
            f"{type(model).__name__} cannot be traced: {where} is TorchScript, whose operations "
            "PyTorch runs out of sight.\n  Build the module that it was made from, copy the weights, "
            "module.load_state_dict(scripted.state_dict()), and trace that. metanet.load_checkpoint "
            "reads them once scripted.state_dict() is saved."
        )


def _way_out(given: Any) -> str:
    if isinstance(given, type) and issubclass(given, nn.Module):
        return "make one, and give that"
    if isinstance(given, str):
        return "references such as timm:NAME are for commands; in Python build the network"
    if callable(given):
        return "make it the forward of a module, whose parameters are its attributes"
    return "weights alone do not say how a network runs; build it, and load them into it"
