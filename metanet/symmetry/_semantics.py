"""What a rule says of one operation, and the registry of rules.

A rule is a function ``rule(op, *args, **kwargs) -> Semantics`` that gets the arguments of the ATen
operation with every tensor replaced by an :class:`Operand`. It returns equations and pins instead
of changing anything, so that each rule can be tested by brute force against the real operation
(``tests/symmetry/test_rules.py`` does so for all of them).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..tracing import is_integer
from ._leaves import Expr, Leaves


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor as a rule sees it: ``left[-1]`` is the expression of its last axis.

    Attributes:
        value: its number in the trace.
        shape: of the recorded example.
        axes: one expression per axis.
        dtype: as text, e.g. ``"int64"``.
        constant: its values, if they depend on neither inputs nor parameters.
        layout: strides and storage offset.
        label: for integers that name items (``topk``'s indices): the axis whose items they name.
        ident: which integers these are: the same through views and copies.
    """

    value: int
    shape: tuple[int, ...]
    axes: tuple[Expr, ...]
    dtype: str = "float32"
    constant: Tensor | None = None
    layout: tuple[tuple[int, ...], int] = ((), 0)
    label: Expr | None = None
    ident: int = -1

    def __getitem__(self, axis: int) -> Expr:
        return self.axes[axis]

    def __iter__(self) -> Iterator[Expr]:
        return iter(self.axes)

    def __len__(self) -> int:
        return len(self.axes)


@dataclass(frozen=True)
class Call:
    """The operation a rule is asked about.

    Attributes:
        name: e.g. ``"aten.addmm"``.
        shapes: of the outputs; ``None`` for an output that is no tensor.
        leaves: where expressions get their sizes from, and fresh leaves for new axes.
    """

    name: str
    shapes: tuple[tuple[int, ...] | None, ...]
    leaves: Leaves

    def fresh(self, size: int) -> Expr:
        """A new axis."""
        return self.leaves.new(size)

    def wild(self, size: int) -> Expr:
        """A new axis along which nothing varies."""
        return self.leaves.new(size, wild=True)

    def as_numbers(self, *operands: Any) -> tuple[tuple[Expr, str], ...]:
        """Pins for the labels of integers that are used as numbers, or lose what they name."""
        found = [o.label for o in operands if isinstance(o, Operand) and o.label is not None]
        return tuple((label, "integers that name its items are used as numbers") for label in found)

    def ties(self, x: Operand, axis: Expr) -> tuple[tuple[Expr, str], ...]:
        """Pins for an axis whose items are chosen by size: where some may well be equal, all their
        places decide.

        Numbers with a point are hardly ever equal, unless nothing varies along the axis; integers
        often are.
        """
        if is_integer(x.dtype) or any(map(self.leaves.is_wild, self.leaves.unbound(axis))):
            return ((axis, "equal items are told apart by their places"),)
        return ()

    def concat(self, *segments: Expr) -> Expr:
        """An axis made of others, one behind the other."""
        return self.leaves.concat(s for s in segments)

    def size(self, expr: Expr) -> int:
        return self.leaves.size(expr)


# What an operation means for the flow of neurons: read by the graph builder, not by the solver.


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
    convolution: bool = False


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


@dataclass(frozen=True, kw_only=True)
class Semantics:
    """What one operation does to axes.

    Attributes:
        outputs: for each output the expressions of its axes, or the :class:`Take` that it is;
            ``None`` for an output that nobody can follow: all its axes are fixed.
        equal: pairs of expressions that list the same items.
        pins: expressions along which nothing may move, and why.
        spaces: joint index spaces besides those of the outputs: what is summed over together with
            what is kept.
        stands: ``(axes, integers)``: the axes stand for the items that the labelled integers name.
        labels: for each output the axis whose items its integers name. ``None`` (not a tuple): the
            rule knows nothing of labels, so that a labelled operand is passed on by a rearrangement
            and pins its label otherwise.
        moves: a mere rearrangement, which reads no value.
        flow: what it means for the flow of neurons (see the graph builder).
    """

    outputs: tuple[tuple[Expr, ...] | Take | None, ...]
    equal: tuple[tuple[Expr, Expr], ...] = ()
    pins: tuple[tuple[Expr, str], ...] = ()
    spaces: tuple[tuple[Expr, ...], ...] = ()
    stands: tuple[tuple[tuple[Expr, ...], Operand], ...] = ()
    labels: tuple[Expr | None, ...] | None = None
    moves: bool = False
    flow: tuple[Flow, ...] = ()


Rule = Callable[..., Semantics]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations by their names without overload, e.g. ``@rule("aten.mm",
    "aten.bmm")``."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(
                    f"two rules for {name}: {RULES[name].__qualname__} and {function.__qualname__}"
                )
            RULES[name] = function
        return function

    return register


def find_rule(name: str, call: Any) -> Rule | None:
    """The rule of an operation: by name, else the one rule of everything PyTorch tags as
    pointwise."""
    if name in RULES:
        return RULES[name]
    return RULES["pointwise"] if call is not None and _is_pointwise(call.overloadpacket) else None


@cache
def _is_pointwise(packet: Any) -> bool:
    """Whether PyTorch tags any overload of an operation as pointwise (``out`` variants often lack
    the tag)."""
    return any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


def normal_axis(axis: int, rank: int) -> int:
    """Axis numbers count from the front."""
    return axis + rank if axis < 0 else axis


def normal_axes(axes: int | list[int] | None, rank: int) -> tuple[int, ...]:
    """The axes that a reduction names; all of them for ``None`` or an empty list."""
    if axes is None or axes == []:
        return tuple(range(rank))
    return tuple(normal_axis(a, rank) for a in ([axes] if isinstance(axes, int) else axes))
