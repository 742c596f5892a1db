"""What activations allow beyond permutations: signs and scales of single neurons.

Every group that comes out of the derivation may be permuted. Whether each of its neurons may
besides be multiplied by -1 (``"sign"``) or by a positive number of its own (``"scale"``), with the
parameters around it making up for it, is linear algebra: every occurrence of the group's leaf in a
value has a charge (see ``_charges.py``), every operation says which charges are equal, cancel or
vanish (its law, in ``operations/``), and the factors are free if a solution other than 0 is left.
Operations that nobody said anything of have no charges: sound always.

Not every solution is of interest. The sign of a convolution in front of a batch norm can be taken
over by its gain, and the gain of a layer norm by the layers that read it, which says nothing of the
neurons themselves. So a factor counts only if whoever sums over the neurons (or is blind to their
sign) finds it there; and where neurons are sums of several results (a residual stream), if such a
sum has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from ..tracing import Op, Ref, is_integer
from ._bindings import Expr
from ._charged import Axes, Charged, ChargedCall
from ._charges import SCALE, SIGN, Balance, Charges, Form, Number
from ._interpretation import Interpretation
from ._operation import Semantics, find_law
from ._solver import Solver

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
        free = self._free[leaf, KINDS[kind]]
        balance = self._balance

        def value(form: Form) -> Form:
            # of the form a + 2 b, where b is the free unknown: 2
            q: Number = balance.system.reduced(form).get(free, 0)
            return {0: q} if q else {}

        def solved(expr: Expr, axis: Charges) -> Charges:
            return balance.mapped(balance.complete(expr, axis), value)

        charges: dict[str, tuple[Charges, ...]] = {}
        for name, axes in self._parameters.items():
            charges[name] = tuple(map(solved, self._axes[name], axes))
        return charges


def also(
    recordings: Sequence[Interpretation], solver: Solver, keys: Mapping[int, tuple[int, ...]]
) -> Also:
    """What every group allows besides permutations.

    Args:
        recordings: all of the network, interpreted.
        solver: after it has finished.
        keys: of every free leaf. Leaves that are keys themselves (heads) are left out: factors of
            theirs are factors of all that they are keys of.
    """
    targets = frozenset(keys).difference(*keys.values())
    balance = Balance(solver.leaves, targets)
    parameters: dict[str, tuple[Charges, ...]] = {}
    for recording in recordings:
        Follower(recording, balance, parameters).run()
    free = balance.factors()
    factors: dict[int, frozenset[str]] = {}
    for name, kind in KINDS.items():
        leaves = [leaf for leaf, of_kind in free if of_kind == kind]
        for leaf in leaves:
            factors[leaf] = factors.get(leaf, frozenset()) | {name}
    return Also(factors, balance, parameters, solver.parameters, free)


class Follower:
    """Follows the charges of one recording from its inputs to its outputs.

    Args:
        recording: interpreted.
        balance: where equations go.
        parameters: charges of the axes of every parameter; those that come up are added.
    """

    def __init__(
        self,
        recording: Interpretation,
        balance: Balance,
        parameters: dict[str, tuple[Charges, ...]],
    ) -> None:
        self.recording = recording
        self.trace = recording.trace
        self.balance = balance
        self.parameters = parameters
        self.known: dict[int, Charged] = {}  # of what has charges, or is 0 everywhere
        self.constants: dict[int, Charged] = {}
        self.data = set(self.trace.inputs)  # what depends on the network's input

    def run(self) -> None:
        """Put all equations to the balance."""
        for op, said in zip(self.trace.ops, self.recording.semantics, strict=True):
            self._operation(op, said)
        for number in (*self.trace.outputs, *self.trace.reads):
            self._pin(self.value(number))

    def _pin(self, x: Charged) -> None:
        """Whoever sees the value is to see the same."""
        for axis in x.axes:
            self.balance.pin(axis)

    def value(self, number: int) -> Charged:
        """The charges of a value."""
        for known in (self.known, self.constants):
            if number in known:
                return known[number]
        value = self.trace.values[number]
        if value.origin == "parameter" and not is_integer(value.dtype):
            axes = self._parameter(value.names[0], number)
            self.known[number] = Charged(number, value.shape, axes, value.dtype)
            return self.known[number]
        constant = self.trace.constants.get(number)
        none: Axes = ((),) * len(value.shape)
        is_data = number in self.data
        x = Charged(number, value.shape, none, value.dtype, is_data, constant, zero=None)
        if constant is not None:
            self.constants[number] = x
        return x

    def _parameter(self, name: str, number: int) -> Axes:
        if name not in self.parameters:
            axes = self.recording.axes[number]
            self.parameters[name] = tuple(map(self.balance.unknown, axes))
        return self.parameters[name]

    def _operation(self, op: Op, said: Semantics | None) -> None:
        numbers = _numbers((*op.args, *op.kwargs.values()))
        if not self.data.isdisjoint(numbers):
            self.data.update(n for n in op.outputs if n is not None)
        law = find_law(op.name)
        operands = self._of_interest(numbers, blank=law is not None and law.blank)
        if not operands:
            return
        if said is None or law is None:
            for x in operands:
                self._pin(x)
            return
        call = ChargedCall(op, said, self.recording, self.balance)
        args = list(map(self._argument, op.args))
        kwargs = {key: self._argument(x) for key, x in op.kwargs.items()}
        results = law.function(call, *args, **kwargs) or ()
        for number, axes in zip_longest(op.outputs, results[: len(op.outputs)]):
            if number is None:
                continue
            has_charges = axes is not None and any(axes)
            if call.zero or has_charges:
                self.known[number] = self._result(number, axes, call.zero)

    def _of_interest(self, numbers: Sequence[int], blank: bool) -> list[Charged]:
        """The operands, if one of them has charges, or is 0 and the law asks for that; else none."""
        if not blank and not any(map(self._may_be_charged, numbers)):
            return []
        operands = list(map(self.value, numbers))
        if any(x.charged for x in operands):
            return operands
        is_zero = blank and any(x.nothing for x in operands)
        return operands if is_zero else []

    def _may_be_charged(self, number: int) -> bool:
        return number in self.known or self.trace.values[number].origin == "parameter"

    def _result(self, number: int, axes: Axes | None, zero: bool) -> Charged:
        value = self.trace.values[number]
        if axes is None:
            axes = ((),) * len(value.shape)
        else:
            axes = self._checked(number, value.dtype, axes)
        return Charged(number, value.shape, axes, value.dtype, number in self.data, None, zero)

    def _checked(self, number: int, dtype: str, axes: Axes) -> Axes:
        """No charges for what does not have the leaves that the value has, nor for numbers that are
        rounded."""
        rounded = not dtype.startswith(("float", "bfloat", "complex"))
        out: list[Charges] = []
        for axis, expr in zip(axes, self.recording.axes[number], strict=True):
            fits = not rounded and self.balance.alike(axis, self.balance.nought(expr))
            if axis and not fits:
                self.balance.pin(axis)
            out.append(axis if fits else ())
        return tuple(out)

    def _argument(self, x: Any) -> Any:
        """An argument with tensors as their charges."""
        if type(x) is Ref:
            return self.value(x.value)
        if type(x) in (tuple, list):
            return list(map(self._argument, x))
        return x


def _numbers(arguments: Sequence[Any]) -> list[int]:
    """The values among arguments."""
    out: list[int] = []
    for x in arguments:
        if type(x) is Ref:
            out.append(x.value)
        elif type(x) in (tuple, list):
            out += _numbers(x)
    return out
