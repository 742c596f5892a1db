"""What activations allow beyond permutations: signs and scales of single neurons.

Every group that comes out of the derivation may be permuted. Whether each of its neurons may
besides be multiplied by -1 (``"sign"``) or by a positive number of its own (``"scale"``), with the
parameters around it making up for it, is linear algebra: every occurrence of the group's leaf in a
value has a charge (see ``_charges.py``), every operation says which charges are equal, cancel or
vanish (its law, in ``operations/``), and the factors are free if a solution other than 0 is left. Operations that
nobody said anything of have no charges: sound always.

Not every solution is of interest. The sign of a convolution in front of a batch norm can be taken
over by its gain, and the gain of a layer norm by the layers that read it, which says nothing of the
neurons themselves. So a factor counts only if whoever sums over the neurons (or is blind to their
sign) finds it there; and where neurons are sums of several results (a residual stream), if such a
sum has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..tracing import Op, Ref, is_integer
from ._charged import Axes, Charged, ChargedCall
from ._charges import SCALE, SIGN, Balance, Charges, Form, Number
from ._operation import Semantics, find_law
from ._solver import Solver, Walk
from ._store import Expr

KINDS = {"sign": SIGN, "scale": SCALE}


@dataclass(frozen=True, eq=False)
class Also:
    """The factors that neurons may have.

    Attributes:
        found: for every leaf that has any, which of ``"sign"`` and ``"scale"``.
    """

    found: Mapping[int, frozenset[str]]
    _balance: Balance = field(repr=False)
    _parameters: Mapping[str, tuple[Charges, ...]] = field(repr=False)
    _axes: Mapping[str, tuple[Expr, ...]] = field(repr=False)
    _free: Mapping[tuple[int, int], int] = field(repr=False)

    def charges(self, leaf: int, kind: str) -> dict[str, tuple[Charges, ...]]:
        """By which powers of the neurons' factors the parameters are multiplied: one solution, if
        ``kind`` was found.

        Returns:
            For every parameter the charges of its axes. The form of each occurrence of the leaf
            holds its charge under the number 0; forms without it (and all other leaves') mean 0.
        """
        free, system = self._free[leaf, KINDS[kind]], self._balance.system

        def value(form: Form) -> Form:
            q: Number = system.reduced(form).get(free, 0)
            return {0: q} if q else {}

        def known(expr: Expr, axis: Charges) -> Charges:
            return self._balance.mapped(self._balance.complete(expr, axis), value)

        return {n: tuple(map(known, self._axes[n], axes)) for n, axes in self._parameters.items()}


def also(walks: Sequence[Walk], solver: Solver, keys: Mapping[int, tuple[int, ...]]) -> Also:
    """What every group allows besides permutations.

    Args:
        walks: of all recordings.
        solver: after it has finished.
        keys: of every free leaf. Leaves that are keys themselves (heads) are left out: factors of
            theirs are factors of all that they are keys of.
    """
    targets = frozenset(keys) - {k for held in keys.values() for k in held}
    balance = Balance(solver.leaves, targets)
    parameters: dict[str, tuple[Charges, ...]] = {}
    for walk in walks:
        _Follower(walk, balance, parameters).run()
    free = balance.factors()
    found: dict[int, frozenset[str]] = {}
    for name, kind in KINDS.items():
        for leaf, own in free:
            if own == kind:
                found[leaf] = found.get(leaf, frozenset()) | {name}
    return Also(found, balance, parameters, solver.parameters, free)


class _Follower:
    """One recording, followed from its inputs to its outputs."""

    def __init__(
        self, walk: Walk, balance: Balance, parameters: dict[str, tuple[Charges, ...]]
    ) -> None:
        self.walk, self.balance, self.parameters = walk, balance, parameters
        self.known: dict[int, Charged] = {}  # of what has charges, or is 0 everywhere
        self.constants: dict[int, Charged] = {}
        self.data = set(walk.trace.inputs)  # what depends on the network's input

    def run(self) -> None:
        """Put all equations to the balance."""
        for op, said in zip(self.walk.trace.ops, self.walk.semantics, strict=True):
            self._operation(op, said)
        for number in self.walk.trace.outputs:
            for axis in self.value(number).axes:
                self.balance.pin(axis)
        for number in self.walk.trace.reads:
            for axis in self.value(number).axes:
                self.balance.pin(axis)

    def value(self, number: int) -> Charged:
        """The charges of a value."""
        for cache in (self.known, self.constants):
            if number in cache:
                return cache[number]
        value = self.walk.trace.values[number]
        axes: Axes = ((),) * len(value.shape)
        if value.origin == "parameter" and not is_integer(value.dtype):
            name = value.names[0]
            if name not in self.parameters:
                self.parameters[name] = tuple(map(self.balance.unknown, self.walk.axes[number]))
            axes = self.parameters[name]
            flow = self.known[number] = Charged(number, value.shape, axes, value.dtype)
            return flow
        constant = self.walk.trace.constants.get(number)
        flow = Charged(number, value.shape, axes, value.dtype, number in self.data, constant, None)
        if constant is not None:
            self.constants[number] = flow
        return flow

    def _operation(self, op: Op, said: Semantics | None) -> None:
        values = self.walk.trace.values
        numbers = _numbers((*op.args, *op.kwargs.values()))
        if not self.data.isdisjoint(numbers):
            self.data.update(n for n in op.outputs if n is not None)
        law = find_law(op.name)
        blank = law is not None and law.blank
        if not blank and not any(
            n in self.known or values[n].origin == "parameter" for n in numbers
        ):
            return
        operands = [self.value(n) for n in numbers]
        if not any(x.charged or (blank and x.nothing) for x in operands):
            return
        if said is None or law is None:
            for axis in (axis for x in operands for axis in x.axes):
                self.balance.pin(axis)
            return
        call = ChargedCall(op, said, self.walk, self.balance)
        args, kwargs = (
            self._arguments(op.args),
            {k: self._arguments(v) for k, v in op.kwargs.items()},
        )
        results = law.function(call, *args, **kwargs) or ()
        for i, number in enumerate(op.outputs):
            axes = results[i] if i < len(results) else None
            if number is None or not (call.zero or (axes is not None and any(axes))):
                continue
            value = values[number]
            axes = (
                ((),) * len(value.shape)
                if axes is None
                else self._checked(number, value.dtype, axes)
            )
            self.known[number] = Charged(
                number, value.shape, axes, value.dtype, number in self.data, None, call.zero
            )

    def _checked(self, number: int, dtype: str, axes: Axes) -> Axes:
        """No charges for what does not have the leaves that the value has, nor for numbers that are
        rounded."""
        rounded = not dtype.startswith(("float", "bfloat", "complex"))
        out = []
        for axis, expr in zip(axes, self.walk.axes[number], strict=True):
            if axis and (rounded or not self.balance.alike(axis, self.balance.nought(expr))):
                self.balance.pin(axis)
                axis = ()
            out.append(axis)
        return tuple(out)

    def _arguments(self, given: Any) -> Any:
        """Arguments with tensors as flows."""
        if type(given) is Ref:
            return self.value(given.value)
        if type(given) not in (tuple, list):
            return given
        return [self._arguments(x) for x in given]


def _numbers(given: Sequence[Any]) -> list[int]:
    """The values among arguments."""
    out = []
    for x in given:
        if type(x) is Ref:
            out.append(x.value)
        elif type(x) in (tuple, list):
            out += _numbers(x)
    return out
