"""What is known of one operation, and the registers of it.

A *rule* is a function ``rule(call, *args, **kwargs) -> Semantics`` that gets the arguments of the
ATen operation with every tensor replaced by an :class:`Operand`. It returns equations and pins
instead of changing anything, so that each rule can be tested by brute force against the real
operation (``tests/symmetry/test_rules.py`` does so for all of them). It also says what the operation
means for the flow of neurons (``_flow.py``).

A *law* says how the charges of the results follow from those of the operands (``_charged.py``).

An axis is an ``Expr``, a tuple of factors of which the first is the slowest. So ``a + b`` is the
product of two axes: with ``heads = (1,)`` and ``dims = (2,)`` the axis ``heads + dims`` lists the
dims of the first head, then those of the second. A size-1 axis is ``()``, the product of nothing.

Rules and laws stand side by side in ``operations/``, one file for each family. A package of one's own
adds some by entry points of the group ``metanet.rules``, named after the operations:

.. code-block:: toml

    [project.entry-points."metanet.rules"]
    "theirs.swirl" = "their_package.swirl"
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch

from ..registry import Registry
from ..tracing import is_integer
from ._flow import Flow, Take
from ._leaves import Expr, Leaves
from ._operand import Operand


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first output; ``()`` if that is no tensor."""
        return self.shapes[0] or ()

    @property
    def function(self) -> str:
        """What PyTorch calls it, e.g. ``"softmax"`` for ``"aten._softmax"``."""
        return self.name.partition(".")[2].strip("_")

    def fresh(self, size: int) -> Expr:
        """A new axis."""
        return self.leaves.new(size)

    def wild(self, size: int) -> Expr:
        """A new axis along which nothing varies."""
        return self.leaves.new(size, wild=True)

    def as_numbers(self, *operands: Any) -> "Pins":
        """Pins for the labels of integers that are used as numbers, or lose what they name."""
        labels = [o.label for o in operands if isinstance(o, Operand) and o.label is not None]
        return pinned(labels, "integers that name its items are used as numbers")

    def ties(self, x: Operand, axis: Expr) -> "Pins":
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
        flow: what it means for the flow of neurons (see ``_flow.py``).
        function: of what acts entry by entry on one tensor, and of softmaxes: what PyTorch calls it, e.g.
            ``"gelu"`` or ``"leaky_relu"``; else empty.
        takes: of each output the stretch that it is. The solver keeps them here, as it replaces
            those among ``outputs`` by their axes.
    """

    outputs: tuple[tuple[Expr, ...] | Take | None, ...]
    equal: tuple[tuple[Expr, Expr], ...] = ()
    pins: tuple[tuple[Expr, str], ...] = ()
    spaces: tuple[tuple[Expr, ...], ...] = ()
    stands: tuple[tuple[tuple[Expr, ...], Operand], ...] = ()
    labels: tuple[Expr | None, ...] | None = None
    moves: bool = False
    flow: tuple[Flow, ...] = ()
    function: str = ""
    takes: tuple[Take | None, ...] = ()

    def axes(self, output: int) -> tuple[Expr, ...] | None:
        """Of one output, once it is known what stretches are made of."""
        axes = self.outputs[output]
        assert not isinstance(axes, Take)
        return axes


Pins = tuple[tuple[Expr, str], ...]
Equal = tuple[tuple[Expr, Expr], ...]

Rule = Callable[..., Semantics | None]
"""``None``: the rule passes on these arguments, and everything they touch is pinned."""

LawFunction = Callable[..., Any]
R = TypeVar("R", bound=Rule)
L = TypeVar("L", bound=LawFunction)


@dataclass(frozen=True)
class Law:
    """A law of charges.

    Attributes:
        function: gets a ``ChargedCall`` and the arguments, see ``_charged.py``.
        blank: asked even if no operand has charges, as it may tell that the result is 0.
    """

    function: LawFunction
    blank: bool = False


_OPERATIONS = f"{__package__}.operations"
RULES: Registry[Rule] = Registry("operation rule", package=_OPERATIONS, group="metanet.rules")
LAWS: Registry[Law] = Registry("operation law", package=_OPERATIONS)


def rule(*names: str, linear: bool = False) -> Callable[[R], R]:
    """Register a rule for operations by their names without overload.

    Args:
        names: e.g. ``"aten.mm", "aten.bmm"``.
        linear: the operations are linear in their first operand and have no other: they get the law
            of those that only move entries about, or mix them along axes that are fixed.
    """

    def register(function: R) -> R:
        for name in names:
            RULES.add(name, function)
            if linear:
                LAWS.add(name, _LINEAR, home=function)
        return function

    return register


def law(*names: str, blank: bool = False) -> Callable[[L], L]:
    """Register a law for operations by their names without overload.

    Args:
        blank: ask it even if no operand has charges.
    """

    def register(function: L) -> L:
        for name in names:
            LAWS.add(name, Law(function, blank))
        return function

    return register


def _linear(call: Any, x: Any, *others: Any, **_: Any) -> Any:
    """Charges go where the entries go."""
    return call.linear(x, *others)


_LINEAR = Law(_linear, blank=True)


def load_operations() -> None:
    """Have every rule and law at hand, plugins' included: one plugin may bring several."""
    RULES.choices()


def find_rule(name: str, call: Any) -> Rule | None:
    """The rule of an operation: by name, else the one rule of everything PyTorch tags as
    pointwise."""
    rule = RULES.get(name)
    if rule is None and call is not None and _is_pointwise(call.overloadpacket):
        return RULES["pointwise"]
    return rule


def find_law(name: str) -> Law | None:
    """The law of an operation."""
    return LAWS.get(name)


@cache
def _is_pointwise(packet: Any) -> bool:
    """Whether PyTorch tags any overload of an operation as pointwise (``out`` variants often lack
    the tag)."""
    return any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


def pinned(axes: Iterable[Expr], why: str) -> Pins:
    """Pins for several axes."""
    return tuple((axis, why) for axis in axes)


def normal_axis(axis: int, rank: int) -> int:
    """Axis numbers count from the front."""
    return axis + rank if axis < 0 else axis


def normal_axes(axes: int | list[int] | None, rank: int) -> tuple[int, ...]:
    """The axes that a reduction names; all of them for ``None`` or an empty list."""
    if axes is None or axes == []:
        return tuple(range(rank))
    listed = [axes] if isinstance(axes, int) else axes
    return tuple([normal_axis(axis, rank) for axis in listed])
