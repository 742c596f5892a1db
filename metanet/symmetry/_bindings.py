"""Axis expressions while equations are solved, and what the leaves in them may turn out to consist of."""

from dataclasses import dataclass

Expr = tuple[int, ...]
Path = tuple[tuple[int, int], ...]
"""Concatenations, and the segment of each that one is in."""


@dataclass(slots=True)
class Factors:
    """Row-major, the last one runs fastest."""

    factors: Expr


@dataclass(slots=True)
class Segments:
    """One part behind the other; tables of other axes may have a part for each.

    Attributes:
        why: what makes it several, if it is not put together of several.
    """

    parts: tuple[Expr, ...]
    why: str = ""


@dataclass(slots=True)
class Table:
    """``parts[i]`` where the concatenation ``key`` is in its segment ``i``."""

    key: int
    parts: tuple[Expr, ...]


Binding = Factors | Segments | Table


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an axis, and the segments of which concatenations one is in there."""

    expr: Expr
    path: Path = ()
