"""torchvision where its compiled operations cannot load: beside a PyTorch of another build (CPU and
CUDA wheels)."""

import importlib
import importlib.util
import sys
from types import ModuleType

import torch

_OPS = (
    "nms",
    "qnms",
)  # torchvision registers shape functions for these at import; the rest is looked up when called
_libraries: list[
    torch.library.Library
] = []  # an operation lives as long as the library that defines it


def import_torchvision() -> ModuleType | None:
    """Import torchvision even where its compiled part is of another build than PyTorch.

    To be called before timm is imported.

    transformers imports it too. Without its compiled operations (non-maximum suppression, ...) all
    else works.

    Returns:
        The module, or ``None`` where it is not installed.

    Raises:
        RuntimeError: torchvision fails for another reason.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return importlib.import_module("torchvision")
