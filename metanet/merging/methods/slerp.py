"""Along the arc between two models."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .._part import Part
from .._registry import method
from ._sphere import combination, cosines, gram

_STRAIGHT = 0.9995  # the cosine from which on the arc is taken for its chord


def _shares(prepared: None, options: Mapping[str, Any], models: int) -> list[float]:
    return [1 - options["t"], options["t"]]


@method("slerp", reference="https://en.wikipedia.org/wiki/Slerp", models=(2, 2), shares=_shares)
def slerp(part: Part, *, t: float = 0.5) -> Tensor:
    """Spherical interpolation of two models, each tensor as one vector: lengths do not shrink.

    Tensors that are nearly parallel, or nearly opposite, are interpolated along the straight line.

    Args:
        t: how far from the first model (0) to the second (1).
    """
    _, angles = cosines(gram(part.tensors))
    return combination(part.tensors, arc(t, float(angles[0, 1]), 1 - _STRAIGHT))


def arc(t: float, cosine: float, straight: float) -> tuple[float, float]:
    """How much of either end makes the point ``t`` of the arc between them.

    Args:
        straight: how near to 1 or -1 the cosine must come for the straight line to be taken.
    """
    if 1 - abs(cosine) < straight:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
