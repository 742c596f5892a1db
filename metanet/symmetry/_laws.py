"""What a law says of one operation, and the registry of laws: how the charges of results follow
from those of operands.

A law is a function ``law(step, *args, **kwargs)`` that gets the arguments of the ATen operation
with every tensor replaced by a :class:`Flow`. It puts its equations to ``step.balance`` and returns
for each output the charges of its axes, or ``None`` for an output that has none. An operation
without a law gives its operands no charges at all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..tracing import Op
from ._charges import Balance, Charges
from ._semantics import Semantics
from ._solver import Walk

Axes = tuple[Charges, ...]


@dataclass(eq=False, slots=True)
class Flow:
    """A tensor as a law sees it: ``x[-1]`` are the charges of its last axis.

    Attributes:
        value: its number in the trace.
        shape, dtype: of the recorded example.
        axes: the charges of each axis.
        data: depends on the network's input.
        constant: its values, if they depend on neither inputs nor parameters.
        zero: known to be 0 everywhere, so that every charge is right; ``None``: its values say so.
    """

    value: int
    shape: tuple[int, ...]
    axes: Axes
    dtype: str = "float32"
    data: bool = False
    constant: Tensor | None = field(default=None, repr=False)
    zero: bool | None = False
    label: None = None  # rules ask for it
    charged: bool = field(init=False)

    def __post_init__(self) -> None:
        self.charged = any(self.axes)

    def __getitem__(self, axis: int) -> Charges:
        return self.axes[axis]

    def __iter__(self) -> Iterator[Charges]:
        return iter(self.axes)

    def __len__(self) -> int:
        return len(self.axes)

    @property
    def nothing(self) -> bool:
        """Whether it is 0 everywhere."""
        if self.zero is None:
            self.zero = self.constant is not None and not bool(self.constant.any())
        return self.zero


@dataclass(eq=False, slots=True)
class Step:
    """The operation a law is asked about.

    Attributes:
        op, said: the operation and its semantics; ``None`` if it has no rule.
        balance: where equations go.
        zero: the results are 0 everywhere.
    """

    op: Op
    said: Semantics | None
    walk: Walk
    balance: Balance
    zero: bool = False

    @property
    def name(self) -> str:
        return self.op.name

    def shape(self, output: int = 0) -> tuple[int, ...]:
        """The shape of an output; ``()`` if it is no tensor."""
        number = self.op.outputs[output]
        return () if number is None else self.walk.trace.values[number].shape

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """The shapes of all outputs."""
        return tuple(
            None if n is None else self.walk.trace.values[n].shape for n in self.op.outputs
        )

    def like(self, output: int = 0) -> Axes:
        """The axes of an output, with charges 0."""
        number = self.op.outputs[output]
        return () if number is None else tuple(map(self.balance.nought, self.walk.axes[number]))

    def whole(self, x: Flow, axis: int) -> Charges:
        """An axis of an operand, even if it has no charges."""
        expr = self.walk.axes.get(x.value)
        return x[axis] or (self.balance.nought(expr[axis]) if expr is not None else ())

    def pin(self, *operands: Any, kind: int | None = None) -> None:
        """No charges (of one kind), for those of the arguments that are tensors."""
        for operand in operands:
            if isinstance(operand, Flow):
                for axis in operand.axes:
                    self.balance.pin(axis, kind)

    def aligned(self, x: Any) -> Axes:
        """The axes of an operand broadcast to the shape of the output."""
        shape = self.shape()
        if not isinstance(x, Flow):
            return ((),) * len(shape)
        lead = len(shape) - len(x)
        return tuple(
            () if i < lead or x.shape[i - lead] != n else x[i - lead] for i, n in enumerate(shape)
        )

    def agree(self, operands: Sequence[Any]) -> Axes:
        """The axes of a result whose operands all have the same charges; numbers other than 0 have
        none."""
        given = [self.aligned(o) for o in operands if not _is_nothing(o)]
        if not given:
            return ((),) * len(self.shape())
        for other in given[1:]:
            for a, b in zip(given[0], other, strict=True):
                self.balance.equal(a, b)
        return tuple(next((a for a in axes if a), ()) for axes in zip(*given, strict=True))

    def product(self, a: Any, b: Any, k: int = 1) -> Axes:
        """The axes of ``a * b ** k``."""
        return tuple(
            self.balance.sum(x, y, k) for x, y in zip(self.aligned(a), self.aligned(b), strict=True)
        )


def _is_nothing(x: Any) -> bool:
    return x.nothing if isinstance(x, Flow) else isinstance(x, (int, float)) and x == 0


@dataclass(frozen=True)
class Law:
    """A law, and whether it is asked even if no operand has charges (as it may tell that the result
    is 0)."""

    function: Callable[..., Sequence[Axes | None] | None]
    blank: bool = False


LAWS: dict[str, Law] = {}


def law(*names: str, blank: bool = False) -> Callable[[Callable], Callable]:
    """Register a law for operations by their names without overload."""

    def register(function: Callable) -> Callable:
        for name in names:
            if name in LAWS:
                raise ValueError(
                    f"two laws for {name}: {LAWS[name].function.__qualname__} and {function.__qualname__}"
                )
            LAWS[name] = Law(function, blank)
        return function

    return register


def find_law(name: str) -> Law | None:
    """The law of an operation."""
    return LAWS.get(name)
