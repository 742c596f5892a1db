"""Public checks: does a relabelling keep the function, and does a metanetwork respect it? And
random networks for them.

Every check comes with its twin: an *illegal* relabelling must be noticed, so that nothing passes by
ignoring its input.
"""

from . import _steps_buffers as _steps_buffers  # registers its steps
from . import _steps_complex as _steps_complex  # registers its steps
from . import _steps_cuts as _steps_cuts  # registers its steps
from . import _steps_layers as _steps_layers
from . import _steps_moves as _steps_moves
from ._checks import assert_function_preserved as assert_function_preserved
from ._checks import assert_invariant as assert_invariant
from ._checks import illegal as illegal
from ._checks import movable as movable
from ._checks import random_states as random_states
from ._graphs import assert_graph as assert_graph
from ._graphs import graph_problems as graph_problems
from ._networks import Residual as Residual
from ._networks import random_network as random_network
from ._programs import STEPS as STEPS
from ._programs import Program as Program
from ._programs import step as step
from ._states import random_values as random_values
