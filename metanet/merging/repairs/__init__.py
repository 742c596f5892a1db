"""Statistics of merged networks: running statistics measured anew, the spread of every layer's
outputs restored.

Between two networks whose neurons agree only in part, activations vary less than in either, layer
by layer less, until nothing is left of the signal (Jordan et al. 2022,
https://arxiv.org/abs/2211.08403). A new repair is one function with ``@repair`` (``_registry.py``).
"""

from ._calibrate import TOLERANCE as TOLERANCE
from ._calibrate import Corrections as Corrections
from ._calibrate import calibrate as calibrate
from ._goals import Measured as Measured
from ._goals import Spread as Spread
from ._goals import between as between
from ._goals import measure_layers as measure_layers
from ._normalisers import normalisers as normalisers
from ._registry import REPAIRS as REPAIRS
from ._registry import repair as repair
from ._repaired import check_repair as check_repair
from ._repaired import repaired as repaired
