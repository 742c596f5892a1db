"""Small modules, one for each construct that networks are made of, with the symmetries that one
derives by hand.

Nothing here runs the solver. The grammar of the axes is that of ``symmetry.truth``.
"""

from . import buffers, channels, complex_numbers, cuts, heads, learned, mixing, parameters
from ._construct import CONSTRUCTS, Construct, Net, groups_of

__all__ = [
    "CONSTRUCTS", "Construct", "Net", "buffers", "channels", "complex_numbers", "cuts", "groups_of", "heads",
    "learned", "mixing", "parameters",
]  # fmt: skip
