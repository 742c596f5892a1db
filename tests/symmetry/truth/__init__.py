"""Symmetries of well-known architectures, derived by hand from their source: what ``trace`` must
find.

Nothing here runs the solver. A truth names the groups and writes every axis of every tensor in a
small grammar: ``stream`` is the items of a group, ``3`` are fixed items, ``heads*qk`` is a
row-major product, ``a | b`` one behind the other, ``.`` a whole axis that is fixed; axes are
divided by commas. A group whose name ends in ``!`` cannot be moved and only serves as a key.
"""

from ._brute import draw, relabel
from ._compare import differences, moving_groups, rows
from ._sheet import Example, Sheet, Truth

__all__ = ["Example", "Sheet", "Truth", "differences", "draw", "moving_groups", "relabel", "rows"]
