"""What models changed of a base: task vectors, which entries stay, and how they are summed.

Methods put one of each together: ``ties`` is :func:`largest` and :func:`elected`, ``dare_linear``
is :func:`drawn` and :func:`summed`.
"""

from ._consensus import CONSENSUS as CONSENSUS
from ._consensus import elected as elected
from ._consensus import summed as summed
from ._sparsify import PROBABILITY as PROBABILITY
from ._sparsify import drawn as drawn
from ._sparsify import drawn_by_rank as drawn_by_rank
from ._sparsify import largest as largest
from ._sparsify import middle as middle
from ._vector import TaskVector as TaskVector
