"""Record one forward pass of a network as a list of ATen operations."""

from . import _transformers_examples as _transformers_examples
from ._examples import Example as Example
from ._examples import example_inputs as example_inputs
from ._examples import examples_for as examples_for
from ._modules import check_module as check_module
from ._outputs import results as results
from ._places import EXITS as EXITS
from ._places import line_of_the_network as line_of_the_network
from ._prepare import prepare as prepare
from ._recorder import record as record
from ._schemas import Facts as Facts
from ._schemas import facts as facts
from ._trace import Op as Op
from ._trace import Ref as Ref
from ._trace import Trace as Trace
from ._trace import Value as Value
from ._trace import is_integer as is_integer
from ._trace import references as references
from ._trace import tensors_in as tensors_in
