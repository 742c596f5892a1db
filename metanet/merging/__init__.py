"""Merging networks: methods on one tensor at a time, neurons aligned first, statistics repaired
after.

A new method is one function ``(part, *, options...) -> Tensor`` in a file of its own under
``methods/``, registered by ``@method`` (``_registry.py``), and a file in ``conf/method/``.
"""

from ._data import DataPerModel as DataPerModel
from ._inputs import Inputs as Inputs
from ._inputs import open_inputs as open_inputs
from ._merge import merge as merge
from ._options import Options as Options
from ._part import Part as Part
from ._part import Problem as Problem
from ._registry import METHODS as METHODS
from ._registry import Method as Method
from ._registry import PerModel as PerModel
from ._registry import method as method
from ._tensors import Merged as Merged
from ._ties import HEADS as HEADS
from ._ties import is_table as is_table
from .writing import check_free as check_free
from .writing import mains_of as mains_of
from .writing import model_card as model_card
from .writing import save_merged as save_merged
