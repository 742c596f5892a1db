"""Which group moves each item of an axis."""

from ..symmetry import Axis, Choice, Concat, Fixed, Leaf


def groups_along(axis: Axis) -> list[str]:
    """For every item of an axis the group that moves it, "" if none does."""
    if isinstance(axis, Leaf):
        return [axis.group] * axis.size
    if isinstance(axis, Fixed):
        return [""] * axis.size
    if isinstance(axis, Concat):
        return [g for part in axis.parts for g in groups_along(part)]
    if isinstance(axis, Choice):
        return groups_along(axis.parts[0])
    out = [""]
    for part in axis.parts:
        own = groups_along(part)
        out = [b or a for a in out for b in own]
    return out
