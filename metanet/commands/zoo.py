"""The command ``zoo``: networks are made, or those of a zoo that was stopped are finished."""

from typing import Any

from ..config import build


def zoo(cfg: Any) -> None:
    """Build ``cfg.zoo``, make or finish its networks, and print what it is.

    Args:
        cfg: the composed ``conf/zoo.yaml``; ``cfg.zoo`` names a class with ``load(progress=True)``.
    """
    population = build(cfg.zoo).load(progress=True)
    print(repr(population))
