"""The repairs by name.

A repair is a function ``(now, goal) -> (scale, shift)``: what a layer's outputs are to be
multiplied by, and what is to be added then, so that their statistics come from what they are now to
what they are to be.
"""

from collections.abc import Callable

from torch import Tensor

from ._goals import Spread

Correct = Callable[[Spread, Spread], tuple[Tensor, Tensor | None]]

REPAIRS: dict[str, Correct | None] = {"bn_reset": None}
"""Every repair by its name. All of them measure running statistics anew; ``bn_reset`` does nothing
else."""


def repair(name: str) -> Callable[[Correct], Correct]:
    """Register a repair."""

    def register(correct: Correct) -> Correct:
        REPAIRS[name] = correct
        return correct

    return register


@repair("repair")
def match_both(now: Spread, goal: Spread) -> tuple[Tensor, Tensor | None]:
    r"""REPAIR (Jordan et al. 2022, https://arxiv.org/abs/2211.08403): mean and standard deviation
    of every channel.

    :math:`y \leftarrow (y - \mu) \sigma^* / \sigma + \mu^*`. A layer without bias can't take the
    mean: it is scaled.
    """
    scale = goal.std / now.std
    return scale, goal.mean - scale * now.mean


@repair("rescale")
def match_spread(now: Spread, goal: Spread) -> tuple[Tensor, Tensor | None]:
    r"""RESCALE ("Rethink Model Re-Basin and the Linear Mode Connectivity", 2024,
    https://arxiv.org/abs/2402.05966): the standard deviation alone, :math:`y \leftarrow y \sigma^*
    / \sigma`; biases are scaled with their weights."""
    return goal.std / now.std, None
