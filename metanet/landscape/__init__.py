"""What lies between two networks: loss and accuracy along the straight path from one's weights to the other's.

A new measure is one function with ``@metric`` (``_metrics.py``), a new named loss one with ``@loss`` (``_losses.py``).
"""

from ._barrier import barrier as barrier
from ._curve import Barrier as Barrier
from ._fitting import fit_to as fit_to
from ._losses import LOSSES as LOSSES
from ._losses import find_loss as find_loss
from ._metrics import METRICS as METRICS
from ._metrics import Metric as Metric
from ._metrics import metric as metric
