"""One rule per family of operations; importing this package registers them all."""

from . import complex_numbers as complex_numbers
from . import contraction as contraction
from . import deformable as deformable
from . import indexing as indexing
from . import normalisation as normalisation
from . import pointwise as pointwise
from . import reduction as reduction
from . import shape as shape
from . import spatial as spatial
from . import stretches as stretches
