"""What a law says of one operation: how the charges of results follow from those of operands.

A law is a function ``law(call, *args, **kwargs)`` that gets the arguments of the ATen operation with
every tensor replaced by a :class:`Charged`. It puts its equations to ``call.balance`` and returns for
each output the charges of its axes, or ``None`` for an output that has none. An operation without a
law gives its operands no charges at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..tracing import Op
from ._charges import ZERO, Balance, Charges, Form, Occurrence, Piece
from ._flow import Follow, Regroup, Take
from ._operation import Semantics
from ._solver import Walk

Axes = tuple[Charges, ...]


@dataclass(eq=False, slots=True)
class Charged:
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
class ChargedCall:
    """The operation a law is asked about.

    Attributes:
        op, said: the operation, and what its rule says.
        balance: where equations go.
        zero: the results are 0 everywhere.
    """

    op: Op
    said: Semantics
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

    def whole(self, x: Charged, axis: int) -> Charges:
        """An axis of an operand, even if it has no charges."""
        expr = self.walk.axes.get(x.value)
        return x[axis] or (self.balance.nought(expr[axis]) if expr is not None else ())

    def pin(self, *operands: Any, kind: int | None = None) -> None:
        """No charges (of one kind), for those of the arguments that are tensors."""
        for operand in operands:
            if isinstance(operand, Charged):
                for axis in operand.axes:
                    self.balance.pin(axis, kind)

    def aligned(self, x: Any) -> Axes:
        """The axes of an operand broadcast to the shape of the output."""
        shape = self.shape()
        if not isinstance(x, Charged):
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

    # ---------------------------------------------------------------- what only moves entries about

    def linear(self, x: Charged, *others: Any) -> list[Axes | None]:
        """The outputs of an operation that is linear in ``x``: charges go where the entries go."""
        self.zero = x.nothing
        self.pin(*others)
        if not x.charged:
            return []
        if any(self.said.takes):
            return [t and self.taken(x, t, i) for i, t in enumerate(self.said.takes)]
        flow = self.said.flow[0] if self.said.flow else None
        if isinstance(flow, Follow):
            return [self.followed(x)]
        if isinstance(flow, Regroup):
            return [self.regrouped(x)]
        return [self.by_leaf(x)]

    def followed(self, x: Charged) -> Axes:
        """The output by the semantics' word for which axes stay; those that go have no charges."""
        flow = self.said.flow[0] if self.said.flow else None
        if not isinstance(flow, Follow):
            self.pin(x)
            return ((),) * len(self.shape())
        for a in set(range(len(x))).difference(flow.axes):
            self.balance.pin(x[a])
        return tuple(() if a is None else x[a] for a in flow.axes)

    def regrouped(self, x: Charged) -> Axes | None:
        """The same leaves in the same order, on other axes."""
        before = [n for a in range(len(x)) for n in self.whole(x, a) if n.live]
        out: list[Charges] = []
        for like in self.like():
            n = sum(node.live for node in like)
            own, before = tuple(before[:n]), before[n:]
            if not self.balance.alike(own, like):
                self.pin(x)
                return None
            out.append(self.balance.filled(like, own))
        if before:
            self.pin(x)
            return None
        return tuple(out)

    def by_leaf(self, x: Charged, gone: Sequence[int] = ()) -> Axes:
        """The output by where it has the leaves of ``x``, other than those on axes that are gone."""
        balance = self.balance
        found: dict[int, list[Form]] = {}
        for a in gone:
            balance.pin(x[a])
        for axis in (x[a] for a in range(len(x)) if a not in gone):
            for n in axis:
                for o in balance.occurrences((n,)):
                    # Of what is inside a concatenation only a part may be there.
                    found.setdefault(o.root, []).extend(
                        [o.form] if isinstance(n, Occurrence) else [o.form, o.form]
                    )
        like = self.like()
        count: dict[int, int] = {}
        for axis in like:
            for o in balance.occurrences(axis):
                count[o.root] = count.get(o.root, 0) + 1
        for root, forms in found.items():
            if len(forms) != 1 or count.get(root) != 1:
                for form in forms:
                    balance.system.vanish(form)
        kept = {
            root: forms[0]
            for root, forms in found.items()
            if len(forms) == 1 and count.get(root) == 1
        }
        return tuple(
            tuple(
                Occurrence(n.root, kept.get(n.root, ZERO)) if isinstance(n, Occurrence) and n.live else n for n in axis
            )
            for axis in like
        )  # fmt: skip

    def taken(self, x: Charged, take: Take, output: int) -> Axes:
        """A stretch of one axis; axes that depend on where it is follow."""
        balance, axis = self.balance, take.axis
        others = [a for a in range(len(x)) if a != axis]
        pieces = balance.pieces(self.whole(x, axis), x.shape[axis])
        chosen, at = [], 0
        for piece in pieces:
            if take.start < at + piece.size and at < take.stop:
                chosen.append(piece)
                if at < take.start or at + piece.size > take.stop or take.step != 1:
                    balance.pin(piece.axis)  # only some of its items
                    chosen[-1] = Piece((), piece.path, piece.size)
            at += piece.size
        out: list[Charges] = list(x.axes)
        if len(chosen) == 1:
            out[axis] = chosen[0].axis
            for a in others:
                out[a] = balance.restrict(x[a], chosen[0].path)
        else:
            like = self.like(output)
            joined = balance.joined(like[axis], chosen) if not take.drop else None
            if joined is None:
                for piece in chosen:
                    balance.pin(piece.axis)
            out[axis] = joined or ()
            keys = frozenset(key for piece in chosen for key, _ in piece.path)
            for a in others:
                if balance.depends(x[a], keys):
                    balance.pin(x[a])
                    out[a] = ()
        return tuple(out[a] for a in (others if take.drop else range(len(x))))


def _is_nothing(x: Any) -> bool:
    return x.nothing if isinstance(x, Charged) else isinstance(x, (int, float)) and x == 0
