"""What a law says of one operation: how the charges of results follow from those of operands.

A law is a function ``law(call, *args, **kwargs)`` that gets the arguments of the ATen operation with
every tensor replaced by a :class:`Charged`. It puts its equations to ``call.balance`` and returns for
each output the charges of its axes, or ``None`` for an output that has none. An operation without a
law gives its operands no charges at all.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from torch import Tensor

from ..tracing import Op
from ._charges import ZERO, Balance, ChargedStretch, Charges, Form, Node, Occurrence
from ._flow import Follow, Regroup, Take
from ._interpretation import Interpretation
from ._operation import Semantics

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
    def is_result(self) -> bool:
        """Whether it depends on the network's input and is not 0 everywhere."""
        return self.data and not self.nothing

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
    recording: Interpretation
    balance: Balance
    zero: bool = False

    @property
    def name(self) -> str:
        return self.op.name

    def shape(self, output: int = 0) -> tuple[int, ...]:
        """The shape of an output; ``()`` if it is no tensor."""
        number = self.op.outputs[output]
        return () if number is None else self.recording.trace.values[number].shape

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """The shapes of all outputs."""
        return tuple(
            None if n is None else self.recording.trace.values[n].shape for n in self.op.outputs
        )

    def like(self, output: int = 0) -> Axes:
        """The axes of an output, with charges 0."""
        number = self.op.outputs[output]
        if number is None:
            return ()
        return tuple(map(self.balance.nought, self.recording.axes[number]))

    def whole(self, x: Charged, axis: int) -> Charges:
        """An axis of an operand, even if it has no charges."""
        if x[axis]:
            return x[axis]
        exprs = self.recording.axes.get(x.value)
        return () if exprs is None else self.balance.nought(exprs[axis])

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
        axes: list[Charges] = [()] * lead
        for charges, own, size in zip(x.axes, x.shape, shape[lead:], strict=False):
            axes.append(charges if own == size else ())  # none where it is repeated
        return tuple(axes)

    def agree(self, operands: Sequence[Any]) -> Axes:
        """The axes of a result whose operands all have the same charges; numbers other than 0 have
        none."""
        charged = [self.aligned(o) for o in operands if not _is_nothing(o)]
        if not charged:
            return ((),) * len(self.shape())
        first, *others = charged
        for other in others:
            for a, b in zip(first, other, strict=True):
                self.balance.equal(a, b)
        columns = zip(*charged, strict=True)
        return tuple([first_of(column) for column in columns])

    def product(self, a: Any, b: Any, k: int = 1) -> Axes:
        """The axes of ``a * b ** k``."""
        pairs = zip(self.aligned(a), self.aligned(b), strict=True)
        return tuple([self.balance.sum(x, y, k) for x, y in pairs])

    # ---------------------------------------------------------------- what only moves entries about

    def linear(self, x: Charged, *others: Any) -> list[Axes | None]:
        """The outputs of an operation that is linear in ``x``: charges go where the entries go."""
        self.zero = x.nothing
        self.pin(*others)
        if not x.charged:
            return []
        if any(self.said.takes):
            return self._all_taken(x)
        flow = self.said.flow[0] if self.said.flow else None
        if isinstance(flow, Follow):
            return [self.followed(x)]
        if isinstance(flow, Regroup):
            return [self.regrouped(x)]
        return [self.by_leaf(x)]

    def _all_taken(self, x: Charged) -> list[Axes | None]:
        """Every output, where they are stretches of ``x``."""
        takes = enumerate(self.said.takes)
        return [None if take is None else self.taken(x, take, i) for i, take in takes]

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
            nodes, before = tuple(before[:n]), before[n:]
            if not self.balance.alike(nodes, like):
                self.pin(x)
                return None
            out.append(self.balance.filled(like, nodes))
        if before:
            self.pin(x)
            return None
        return tuple(out)

    def by_leaf(self, x: Charged, gone: Sequence[int] = ()) -> Axes:
        """The output by where it has the leaves of ``x``, other than those on axes that are gone.

        A leaf is where it is, if there is but one of it before and behind the operation; else it has
        no charges.
        """
        balance = self.balance
        for a in gone:
            balance.pin(x[a])
        # (a, b) to (b, a):     both keep their charges
        # (a, b) to (b, b):     b is there twice, and neither has any
        before = self._forms_by_leaf([axis for a, axis in enumerate(x) if a not in gone])
        like = self.like()
        behind: Counter[int] = Counter()
        for root, _ in chain.from_iterable(map(balance.forms, like)):
            behind[root] += 1
        unique: dict[int, Form] = {}
        for root, forms in before.items():
            if len(forms) == 1 == behind[root]:
                unique[root] = forms[0]
                continue
            for form in forms:
                balance.system.vanish(form)

        def charged(node: Node) -> Node:
            is_leaf = isinstance(node, Occurrence) and node.live
            return Occurrence(node.root, unique.get(node.root, ZERO)) if is_leaf else node

        return tuple([tuple(map(charged, axis)) for axis in like])

    def _forms_by_leaf(self, axes: Sequence[Charges]) -> dict[int, list[Form]]:
        """The charges that every leaf has on some axes."""
        forms: dict[int, list[Form]] = {}
        for node in chain.from_iterable(axes):
            # Of what is inside a concatenation only a part may be there: as if there were two.
            times = 1 if isinstance(node, Occurrence) else 2
            for root, form in self.balance.forms((node,)):
                forms.setdefault(root, []).extend([form] * times)
        return forms

    def taken(self, x: Charged, take: Take, output: int) -> Axes:
        """An output that is a stretch of ``x``."""
        return self.stretch(x, take.axis, take.start, take.stop, take.step, take.drop, output)

    def stretch(
        self,
        x: Charged,
        axis: int,
        start: int,
        stop: int,
        step: int = 1,
        drop: bool = False,
        output: int = 0,
    ) -> Axes:
        """A stretch of one axis; axes that depend on where it is follow.

        Args:
            drop: the axis goes.
            output: which one it is.
        """
        balance = self.balance
        stretches = balance.stretches(self.whole(x, axis), x.shape[axis])
        inside = self._within(stretches, start, stop, step)
        out: list[Charges] = list(x.axes)
        if len(inside) == 1:
            out = [balance.restrict(charges, inside[0].path) for charges in x.axes]
            out[axis] = inside[0].axis
        else:
            out[axis] = self._joined(inside, () if drop else self.like(output)[axis])
            self.drop_dependent(out, axis, inside)
        if drop:
            del out[axis]
        return tuple(out)

    def drop_dependent(
        self, axes: list[Charges], but: int, stretches: Sequence[ChargedStretch]
    ) -> None:
        """Axes that differ from stretch to stretch of another one lose their charges."""
        keys = path_keys(stretches)
        for a, axis in enumerate(axes):
            if a != but and self.balance.depends(axis, keys):
                self.balance.pin(axis)
                axes[a] = ()

    def _within(
        self, stretches: Sequence[ChargedStretch], start: int, stop: int, step: int
    ) -> list[ChargedStretch]:
        """The stretches that a slice touches; those of which it has only some items lose their
        charges."""
        inside: list[ChargedStretch] = []
        first = 0
        for stretch in stretches:
            last = first + stretch.size
            is_touched = start < last and first < stop
            is_whole = start <= first and last <= stop and step == 1
            if is_touched and is_whole:
                inside.append(stretch)
            elif is_touched:
                self.balance.pin(stretch.axis)
                inside.append(replace(stretch, axis=()))
            first = last
        return inside

    def _joined(self, stretches: Sequence[ChargedStretch], like: Charges) -> Charges:
        """Stretches as one axis; without charges if they do not make it up."""
        joined = self.balance.joined(like, stretches)
        if joined is None:
            self._pin_all(stretches)
        return joined or ()

    def _pin_all(self, stretches: Sequence[ChargedStretch]) -> None:
        for stretch in stretches:
            self.balance.pin(stretch.axis)


def path_keys(stretches: Sequence[ChargedStretch]) -> frozenset[int]:
    """The concatenations of which stretches are segments."""
    keys: set[int] = set()
    for stretch in stretches:
        keys.update(key for key, _ in stretch.path)
    return frozenset(keys)


def first_of(axes: Iterable[Charges]) -> Charges:
    """The first of several charges of one axis that are any."""
    return next(filter(None, axes), ())


def _is_nothing(x: Any) -> bool:
    if isinstance(x, Charged):
        return x.nothing
    return isinstance(x, (int, float)) and x == 0
