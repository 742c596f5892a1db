"""Where in a network's code Python reads numbers."""

import os
import sys
from pathlib import Path

import jaxtyping
import torch
from torch import Tensor

EXITS = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__}
"""By these numbers leave a tensor for Python, and no operation tells of it."""


def line_of_the_network() -> str:
    """``file:line`` of the innermost running code of the network.

    Which is neither PyTorch's, nor that of recording or verifying, nor a checker of types around a
    function.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OUTSIDE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_OWN = Path(__file__).parent
_TORCH = Path(torch.__file__).parent
_CHECKERS = (Path(jaxtyping.__file__).parent, _TORCH.parent / "beartype")
_OUTSIDE = (
    *(f"{folder}{os.sep}" for folder in (_OWN, _OWN.parent / "verification", _TORCH, *_CHECKERS)),
    "<@beartype",  # where beartype makes its functions
)
