"""Test a symmetry spec against the network itself, in float64 and with everything redrawn."""

from ._float64 import float64 as float64
from ._network import change_of as change_of
from ._redraw import redraw as redraw
from ._verification import TOLERANCE as TOLERANCE
from ._verification import UNSEEN as UNSEEN
from ._verification import Verification as Verification
from ._verify import verify as verify
