"""One law of charges per family of operations; importing this package registers them all."""

from . import entrywise as entrywise
from . import rearrangement as rearrangement
from . import sums as sums
