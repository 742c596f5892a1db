"""What a spec says about one tensor, carried out entry by entry: slow, and independent of
``Transform``."""

from collections import Counter
from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from metanet.symmetry import SymmetrySpec

from ._compare import Row, rows


def draw(spec: SymmetrySpec, generator: torch.Generator) -> dict[str, Tensor]:
    """Elements of the symmetry group, ``(*sizes of keys, size)``; the identity never, except for
    groups of one item."""
    elements = {}
    for group in spec.groups:
        shape = (*(spec[k].size for k in group.keys), group.size)
        still = torch.arange(group.size).expand(shape)
        if group.kind == "permutation":
            element = torch.rand(shape, generator=generator).argsort(-1)
            idle = (element == still).all(-1, keepdim=True)
            elements[group.name] = torch.where(idle, still.roll(1, -1), element)
        else:
            elements[group.name] = still
    return elements


def relabel(
    spec: SymmetrySpec, name: str, tensor: Tensor, elements: Mapping[str, Tensor]
) -> Tensor:
    """The tensor with its items relabelled: the entry at a new place comes from the old place that
    the elements name.

    Keyed elements are looked up by the new index of the key, as :class:`metanet.Transform` has it.
    """
    of_axis = [rows(axis) for axis in spec.tensors[name].axes]
    moving = [n for n, axis_rows in enumerate(of_axis) if any(axis_rows)]
    if not moving:
        return tensor
    ranks, homes = {}, {}
    for n in moving:
        ranks[n] = _ranks(of_axis[n])
        homes[n] = {place: p for p, place in enumerate(zip(of_axis[n], ranks[n], strict=True))}
    out = tensor.clone()
    for new in product(*(range(tensor.shape[n]) for n in moving)):
        items = dict(item for n, p in zip(moving, new, strict=True) for item in of_axis[n][p])
        source: list[slice | int] = [slice(None)] * tensor.ndim
        target = list(source)
        for n, p in zip(moving, new, strict=True):
            row = tuple(
                (g, int(elements[g][(*_keys(spec, g, items), item)])) for g, item in of_axis[n][p]
            )
            source[n], target[n] = homes[n][row, ranks[n][p]], p
        out[tuple(target)] = tensor[tuple(source)]
    return out


def _keys(spec: SymmetrySpec, group: str, items: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(items[k] if spec[k].size > 1 else 0 for k in spec[group].keys)


def _ranks(axis_rows: list[Row]) -> list[int]:
    """How many positions before have the same row."""
    seen: Counter[Row] = Counter()
    out = []
    for row in axis_rows:
        out.append(seen[row])
        seen[row] += 1
    return out
