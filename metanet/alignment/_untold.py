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
    pieces = pieces_of(spec)
    reasons = {}
    for group in groups:
        if spec[group].size == 1:
            continue
        showing = [p for p in pieces if group in p.groups]
        if not showing:
            reasons[group] = "it is in no tensor but statistics"
        elif any(_all_equal(showing, group, spec, side) for side in sides):
            reasons[group] = "all its neurons have equal weights in one of the checkpoints"
    return reasons


def _all_equal(
    pieces: Sequence[Piece], group: str, spec: SymmetrySpec, side: Mapping[str, Tensor]
) -> bool:
    return all(_equal(p, group, side[stored_name(spec, p.tensor, side)]) for p in pieces)


def _equal(piece: Piece, group: str, tensor: Tensor) -> bool:
    """Whether the items of a group are equal in a piece.

    ``[[1, 2], [1, 2]]`` has equal rows, but not equal columns.
    """
    array = piece.take(tensor)
    if array.dtype.itemsize == 1:
        array = array.float()
    axes = [axis for axis, name in piece.named.items() if name == group]
    return all(bool((array == array.narrow(axis, 0, 1)).all()) for axis in axes)
