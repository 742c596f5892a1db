"""One rule per family of operations; importing this package registers them all."""

from . import contraction as contraction
from . import normalisation as normalisation
from . import pointwise as pointwise
from . import reduction as reduction
from . import shape as shape
