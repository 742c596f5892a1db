"""What lies between two networks: loss and accuracy along the straight path from one's weights to
the other's."""

from ._barrier import STATISTICS as STATISTICS
from ._barrier import barrier as barrier
from ._curve import Barrier as Barrier
