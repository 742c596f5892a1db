"""Fused kernels switched off, which would hide a network's structure behind one operation."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


def cell_by_cell(module: nn.RNNBase) -> Callable[[], None]:
    """Keep a recurrent layer from running as one fused operation; convolutions would be slow
    without such kernels."""
    flags: list[Any] = []

    def off(*_: Any) -> None:
        flags.append(ExitStack())
        flags[-1].enter_context(torch.backends.mkldnn.flags(enabled=False, allow_tf32=None))
        flags[-1].enter_context(torch.backends.cudnn.flags(enabled=False))

    def on(*_: Any) -> None:
        flags.pop().close()

    before = module.register_forward_pre_hook(off)
    after = module.register_forward_hook(on, always_call=True)

    def remove() -> None:
        before.remove()
        after.remove()

    return remove


@contextmanager
def plain_kernels() -> Any:
    """Turn off the fused kernels that would hide a network's structure behind one operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
