"""The repairs by name.

A repair is a function ``(now, goal) -> (scale, shift)``: what a layer's outputs are to be
multiplied by, and what is to be added then, so that their statistics come from what they are now to
what they are to be.
"""

import inspect
from collections.abc import Callable

from torch import Tensor

from ...errors import MetanetError
from ...registry import Registry
from ._goals import Spread

Correct = Callable[[Spread, Spread], tuple[Tensor, Tensor | None]]


def _statistics_alone() -> None:
    """Running statistics measured anew, as every repair does, and nothing else."""


def _told_by(correct: Correct | None) -> Callable[..., object]:
    return _statistics_alone if correct is None else correct


REPAIRS: Registry[Correct | None] = Registry("repair", group="metanet.repairs", described=_told_by)
"""Every repair by its name. All of them measure running statistics anew; ``bn_reset``, which is
``None``, does nothing else."""

REPAIRS.add("bn_reset", None)


def repair(name: str) -> Callable[[Correct], Correct]:
    """Register a repair.

    Raises:
        MetanetError: there is one of this name, or the function takes other arguments than ``(now,
            goal)``.
    """

    def register(correct: Correct) -> Correct:
        parameters = list(inspect.signature(correct).parameters.values())
        needed = [p for p in parameters if p.default is p.empty]
        if len(needed) != 2 or any(p.kind is p.KEYWORD_ONLY for p in needed):
            raise MetanetError(
                f"repair {name!r} in {correct.__code__.co_filename}: {correct.__name__} takes "
                f"{inspect.signature(correct)}; it must take (now, goal)"
            )
        REPAIRS.add(name, correct)
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
