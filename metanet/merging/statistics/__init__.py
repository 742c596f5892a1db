"""What networks show on data: Fisher information, Gram matrices of inputs, scores."""

from ._blocks import Block as Block
from ._blocks import apart as apart
from ._fisher import fishers as fishers
from ._fisher import mean_of as mean_of
from ._grams import grams as grams
from ._score import as_good as as_good
from ._score import score as score
