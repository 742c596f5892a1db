"""What an operation means for the flow of neurons: where those of its operands are in its results.

A rule says it beside the axes (``Semantics.flow``), in one or several words, each of which holds. The
solver reads only :class:`Take`; the rest is for whoever asks where neurons go and which weights act on
them: graphs, matchers, repairs.

What several words say of one operation is the same, told for several purposes. ``x.permute(1, 0)``
is ``Follow(x, (1, 0))`` for whoever asks for axes, ``Rearrange(x, "view")`` for whoever follows
single entries.
"""

from dataclasses import dataclass

from ._operand import Operand


@dataclass(frozen=True, eq=False)
class Follow:
    """Output 0 stays on this operand's site.

    Its axis i is the operand's axis ``axes[i]`` (``None``: a new axis).
    """

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
    """Output 0 is a sum over ``data[data_axis] * weight[weight_in]``.

    Its ``out_axis`` is ``weight[weight_out]``.

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
    """A parameter acts on the neurons it is aligned with.

    Its axis i lies along axis ``axes[i]`` of output 0.
    """

    operand: Operand
    axes: tuple[int | None, ...]
    role: str  # "bias", "scale", "shift", "mean", "variance"


@dataclass(frozen=True, eq=False)
class Join:
    """Output 0 is an entry-wise function of the operands, broadcast from the right."""

    operands: tuple[Operand, ...]
    how: str  # "add", "multiply", "other"


@dataclass(frozen=True, eq=False)
class Rearrange:
    """Every entry of every output is one of the operand's entries.

    Which one shows when the operation is run on their numbers instead.

    Attributes:
        how: ``"same"``: each output is the operand entry by entry, perhaps in another dtype.
            ``"view"``: the outputs show the operand's memory, where its strides allow it.
            ``"copy"``: they do not. ``"windows"``: a copy, with zeros for what lies outside.
            ``"memory"``: a copy whose arguments count places in the memory of a contiguous operand.
    """

    operand: Operand
    how: str  # "same", "view", "copy", "windows", "memory"


@dataclass(frozen=True, eq=False)
class Pad:
    """Output 0 is this operand with something constant around it.

    So many items before and behind those of each axis; fewer than none: some are cut off.
    """

    operand: Operand
    around: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Concatenate:
    """Output 0 is the operands one behind the other along an axis, a new one if they are stacked."""

    operands: tuple[Operand, ...]
    axis: int
    stacked: bool = False


@dataclass(frozen=True, eq=False)
class Write:
    """Output 0 is an operand in which some items of an axis are replaced.

    The ``count`` items from ``start`` are those of another operand, which lacks the axis if it is a
    ``single`` item.
    """

    into: Operand
    source: Operand
    axis: int
    start: int
    count: int
    single: bool = False


@dataclass(frozen=True, eq=False)
class LookUp:
    """Output 0 holds items of a table by number.

    Attributes:
        table: what is looked up.
        integers: one tensor for each of the axes.
        axes: of the table, whose items they name.
        lead: the axis of output 0 at which their axes stand in place of those of the table.
        embedding: whether the operation is there for tokens.
    """

    table: Operand
    integers: tuple[Operand, ...]
    axes: tuple[int, ...]
    lead: int
    embedding: bool = False


@dataclass(frozen=True, eq=False)
class Gate:
    """Output 0 is one half of this operand along an axis, times a function of the other half."""

    operand: Operand
    axis: int


@dataclass(frozen=True, eq=False)
class Choose:
    """Integers among the outputs name items of this operand, chosen by its numbers."""

    operand: Operand


@dataclass(frozen=True, eq=False)
class Total:
    """Entries of output 0 are sums over entries of this operand, weighted by constants."""

    operand: Operand


Flow = (
    Follow
    | Regroup
    | Contraction
    | Attach
    | Join
    | Rearrange
    | Pad
    | Concatenate
    | Write
    | LookUp
    | Gate
    | Choose
    | Total
)
"""How the neurons of one operation flow: what a rule says besides equations."""


@dataclass(frozen=True, slots=True)
class Take:
    """An output that is ``operand[..., start:stop:step, ...]`` along one axis.

    The axis is dropped afterwards or kept.
    """

    operand: Operand
    axis: int
    start: int
    stop: int
    step: int = 1
    drop: bool = False
