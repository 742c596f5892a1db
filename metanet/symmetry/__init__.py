"""The symmetries of an architecture, derived from its recording."""

from ._axes import Axis as Axis
from ._axes import Choice as Choice
from ._axes import Concat as Concat
from ._axes import Fixed as Fixed
from ._axes import Leaf as Leaf
from ._axes import Product as Product
from ._axes import axis_to_json as axis_to_json
from ._axes import chosen as chosen
from ._axes import fixed_of as fixed_of
from ._axes import leaves_of as leaves_of
from ._derive import Derivation as Derivation
from ._derive import derive as derive
from ._semantics import Attach as Attach
from ._semantics import Contraction as Contraction
from ._semantics import Follow as Follow
from ._semantics import Join as Join
from ._semantics import Operand as Operand
from ._semantics import Regroup as Regroup
from ._semantics import Semantics as Semantics
from ._semantics import Take as Take
from ._semantics import rule as rule
from ._spec import Group as Group
from ._spec import SymmetrySpec as SymmetrySpec
from ._spec import TensorAxes as TensorAxes
from ._transform import Transform as Transform
