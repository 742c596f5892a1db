"""Neuron alignment: find the relabelling that brings one network closest to another, for any
architecture that traces.

A new matcher is one function ``(problem, *, options...) -> Match`` in a file of its own in
``matchers/``, registered by ``@matcher`` (``_registry.py``). What looks at neurons (runs, moments, terms of
the objective) is exported for merging, which zips features by the same means.
"""

from ._align import align as align
from ._alignment import Alignment as Alignment
from ._assignment import assign as assign
from ._checks import checked as checked
from ._elements import to_elements as to_elements
from ._elements import to_transform as to_transform
from ._moments import Moments as Moments
from ._moves import families as families
from ._moves import keys_of as keys_of
from ._moves import movable_groups as movable_groups
from ._pieces import STATISTICS as STATISTICS
from ._pieces import cut_axis as cut_axis
from ._registry import MATCHERS as MATCHERS
from ._registry import Match as Match
from ._registry import Matcher as Matcher
from ._registry import Problem as Problem
from ._registry import matcher as matcher
from ._running import NeuronRunner as NeuronRunner
from ._stock import stored_name as stored_name
from ._terms import added_up as added_up
from ._terms import arrange_by_terms as arrange_by_terms
from ._terms import terms_of as terms_of
