"""Statistics of the merged network."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..checkpoints import Checkpoint
from ._part import Problem

REPAIRS = ("bn_reset", "repair", "rescale")


def check_repair(name: str, model: nn.Module | None, data: Iterable[Any] | None) -> None:
    raise NotImplementedError


def repaired(name: str, merged: Checkpoint, problem: Problem, weights) -> Checkpoint:
    raise NotImplementedError
