"""Groups that stayed as they are because nothing tells their neurons apart."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..symmetry import SymmetrySpec
from ._pieces import Piece, pieces_of
from ._stock import stored_name


def untold_groups(
    spec: SymmetrySpec, groups: Sequence[str], sides: Sequence[Mapping[str, Tensor]]
) -> dict[str, str]:
    """Those of the groups whose items are equal in every tensor of a checkpoint, or in no tensor
    that counts, and why.

    Args:
        sides: the checkpoints that were matched.
    """
    out = {}
    pieces = pieces_of(spec)
    for group in groups:
        held = [p for p in pieces if group in p.groups]
        if spec[group].size == 1:
            continue
        if not held:
            out[group] = "it is in no tensor but statistics"
        elif any(all(_equal(p, group, spec, side) for p in held) for side in sides):
            out[group] = "all its neurons have equal weights in one of the checkpoints"
    return out


def _equal(piece: Piece, group: str, spec: SymmetrySpec, side: Mapping[str, Tensor]) -> bool:
    array = piece.take(side[stored_name(spec, piece.tensor, side)])
    if array.dtype.itemsize == 1:
        array = array.float()
    return all(
        bool((array == array.narrow(i, 0, 1)).all())
        for i, a in enumerate(piece.atoms)
        if a.group == group
    )
