"""The copy of a network that is recorded and verified."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..errors import TraceError
from ._modules import check_module


def prepare(model: nn.Module) -> nn.Module:
    """A copy in eval mode, set so that its structure shows.

    What is recorded is also what is verified.

    transformers models use eager attention, batched matrix products for experts, and no cache.
    Parameters stay tied.

    Raises:
        TraceError: no module, TorchScript, or a module that cannot be copied.
    """
    check_module(model)
    # Tensors computed from parameters and kept on the module (old-style weight norm) refuse to be
    # deep-copied.
    computed = {
        id(t): t.detach().clone()
        for m in model.modules()
        for t in vars(m).values()
        if isinstance(t, Tensor) and not t.is_leaf
    }
    try:
        model = copy.deepcopy(model, computed).eval()
    except Exception as e:
        raise TraceError(f"{type(model).__name__} cannot be copied: {type(e).__name__}: {e}") from e
    for module in model.modules():
        for config in _configs(getattr(module, "config", None)):
            for name, value in _SETTINGS.items():
                if hasattr(config, name):
                    setattr(config, name, value)
    return model


_SETTINGS = {
    "use_cache": False,
    "_attn_implementation_internal": "eager",  # the public names warn about submodules that are set anyway
    "_experts_implementation_internal": "batched_mm",
}


def _configs(config: Any) -> Iterator[Any]:
    """A transformers configuration and those inside it."""
    if hasattr(config, "to_dict"):
        yield config
        for name in getattr(config, "sub_configs", None) or ():
            yield from _configs(getattr(config, name, None))
