"""Transforms as arrays, one for each group that moves, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..symmetry import SymmetrySpec, Transform
from ._moves import Keys


def to_elements(transform: Transform, keys: Keys) -> dict[str, Tensor]:
    """The permutations of a transform, without axes for keys of one item."""
    spec = transform.spec
    elements = {}
    for name, above in keys.items():
        if spec[name].kind != "permutation":
            continue
        sizes = [spec[key].size for key in above]
        element = transform.element(name).reshape(*sizes, spec[name].size)
        elements[name] = element.contiguous()
    return elements


def to_transform(elements: Mapping[str, Tensor], spec: SymmetrySpec) -> Transform:
    """The inverse of :func:`to_elements`; groups that stay are left out."""
    out = {}
    for name, element in elements.items():
        group = spec[name]
        if not torch.equal(element, torch.arange(group.size).expand(element.shape)):
            out[name] = element.reshape(*(spec[k].size for k in group.keys), group.size)
    return Transform(spec, out)
