"""What an operation means for the flow of neurons: where those of its operands are in its results.

A rule says it beside the axes (``Semantics.flow``). The solver reads only :class:`Take`; the rest is
for whoever asks where neurons go and which weights act on them: graphs, matchers, repairs.
"""

from dataclasses import dataclass

from ._operand import Operand


@dataclass(frozen=True, eq=False)
class Follow:
    """Output 0 stays on this operand's site: its axis i is the operand's axis ``axes[i]``
    (``None``: a new axis)."""

    operand: Operand
    axes: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Regroup:
    """Output 0 holds this operand's entries in the same row-major order under another shape."""

    operand: Operand


@dataclass(frozen=True, slots=True)
class Window:
    """How the kernel of a convolution slides: numbers for each spatial axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Contraction:
    """Output 0 is a sum over ``data[data_axis] * weight[weight_in]``; its ``out_axis`` is
    ``weight[weight_out]``.

    With ``groups`` > 1 the leading factor of the data axis, of the output axis and of
    ``weight[group_axis]`` counts the groups.
    """

    data: Operand
    weight: Operand
    data_axis: int
    weight_in: int
    weight_out: int
    out_axis: int
    groups: int = 1
    group_axis: int | None = None
    convolution: Window | None = None


@dataclass(frozen=True, eq=False)
class Attach:
    """A parameter acts on the neurons it is aligned with: its axis i lies along axis ``axes[i]`` of
    output 0."""

    operand: Operand
    axes: tuple[int | None, ...]
    role: str  # "bias", "scale", "shift", "mean", "variance"


@dataclass(frozen=True, eq=False)
class Join:
    """Output 0 is an entry-wise function of the operands, broadcast from the right."""

    operands: tuple[Operand, ...]
    how: str  # "add", "multiply", "other"


Flow = Follow | Regroup | Contraction | Attach | Join


@dataclass(frozen=True, slots=True)
class Take:
    """An output that is ``operand[..., start:stop:step, ...]`` along one axis, which is dropped
    afterwards or kept."""

    operand: Operand
    axis: int
    start: int
    stop: int
    step: int = 1
    drop: bool = False
