"""Neuron alignment: find the relabelling that brings one network closest to another, for any architecture that traces.

A new matcher is one function ``(problem, *, options...) -> Match`` in a file of its own, registered by ``@matcher``
(``_registry.py``) and imported here.
"""

from . import _activation as _activation
from . import _combined as _combined
from . import _merge_many as _merge_many
from . import _sinkhorn as _sinkhorn
from . import _straight_through as _straight_through
from . import _universe as _universe
from . import _weight as _weight
from ._align import align as align
from ._alignment import Alignment as Alignment
from ._assignment import assign as assign
from ._registry import MATCHERS as MATCHERS
from ._registry import Match as Match
from ._registry import Matcher as Matcher
from ._registry import Problem as Problem
from ._registry import matcher as matcher
