"""Tensors as they are, for stacking layers."""

from torch import Tensor

from ...errors import MetanetError
from .._part import Part
from .._registry import PerModel, method


@method("passthrough", reference="https://github.com/arcee-ai/mergekit", models=(1, None))
def passthrough(part: Part, *, scale: PerModel = 1.0) -> Tensor:
    """Every tensor of the one model that takes part: slices say which layers come from which model.

    Args:
        scale: factor on the tensors of each model.
    """
    if len(part.tensors) != 1:
        raise MetanetError(
            f"{part.name}: method 'passthrough' takes a tensor from one model, {len(part.tensors)} "
            "take part; give one model, or slices=[{0: [0, 8]}, {1: [4, 12]}] of one model each"
        )
    return part.tensors[0] if scale[0] == 1 else part.tensors[0] * scale[0]
