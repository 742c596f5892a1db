"""What activations allow beyond permutations: signs and scales of single neurons.

Every group that comes out of the derivation may be permuted. Whether each of its neurons may besides be multiplied by
-1 (``"sign"``) or by a positive number of its own (``"scale"``), with the parameters around it making up for it, is
linear algebra: every occurrence of the group's leaf in a value has a charge (see ``_charges.py``), every operation
says which charges are equal, cancel or vanish (``laws/``), and the factors are free if a solution other than
0 is left. Operations that nobody said anything of have no charges: sound always.

The gain of a normalisation alone can be taken over by the layers that read it, which says nothing of the neurons in
front of it. So a group whose neurons are sums of several results (a residual stream) has a factor only if such a
sum has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..tracing import Op, Ref
from . import laws  # noqa: F401  (registers the laws)
from ._charges import SCALE, SIGN, Balance, Charges, Form, Number
from ._laws import Flow, Step, find_law
from ._leaves import Leaves
from ._solver import Walk

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
    _free: Mapping[tuple[int, int], int] = field(repr=False)

    def charges(self, leaf: int, kind: str) -> dict[str, tuple[Charges, ...]]:
        """By which powers of the neurons' factors the parameters are multiplied: one solution, if ``kind`` was found.

        Returns:
            For every parameter the charges of its axes. The form of each occurrence of the leaf holds its charge under
            the number 0; forms without it (and all other leaves') mean 0.
        """
        free, system = self._free[leaf, KINDS[kind]], self._balance.system

        def value(form: Form) -> Form:
            q: Number = system.reduced(form).get(free, 0)
            return {0: q} if q else {}

        return {
            name: tuple(self._balance.mapped(axis, value) for axis in axes) for name, axes in self._parameters.items()
        }


def also(walks: Sequence[Walk], leaves: Leaves, keys: Mapping[int, tuple[int, ...]]) -> Also:
    """What every group allows besides permutations.

    Args:
        walks: of all recordings, after the solver has finished.
        leaves: its solution.
        keys: of every free leaf. Leaves that are keys themselves (heads) are left out: factors of theirs are factors of
            all that they are keys of.
    """
    targets = frozenset(keys) - {k for held in keys.values() for k in held}
    balance = Balance(leaves, targets)
    parameters: dict[str, tuple[Charges, ...]] = {}
    sums: list[Charges] = []
    for walk in walks:
        _Follower(walk, balance, parameters, sums).run()
    system = balance.system
    summed: dict[tuple[int, int], set[int]] = {}
    for axis in sums:
        for o in balance.occurrences(axis):
            for kind in (SIGN, SCALE):
                summed.setdefault((o.root, kind), set())
            for unknown in system.reduced(o.form):
                summed[o.root, unknown & 1].add(unknown)
    free: dict[tuple[int, int], int] = {}
    for pair, leaf in enumerate(system.owner):
        for kind in (SIGN, SCALE):
            unknown = 2 * pair + kind
            if unknown not in system.solved and unknown in summed.get((leaf, kind), (unknown,)):
                free.setdefault((leaf, kind), unknown)
    found: dict[int, frozenset[str]] = {}
    for name, kind in KINDS.items():
        for leaf, own in free:
            if own == kind:
                found[leaf] = found.get(leaf, frozenset()) | {name}
    return Also(found, balance, parameters, free)


class _Follower:
    """One recording, followed from its inputs to its outputs."""

    def __init__(
        self, walk: Walk, balance: Balance, parameters: dict[str, tuple[Charges, ...]], sums: list[Charges]
    ) -> None:
        self.walk, self.balance, self.parameters, self.sums = walk, balance, parameters, sums
        self.known: dict[int, Flow] = {}

    def run(self) -> None:
        for op, said in zip(self.walk.trace.ops, self.walk.semantics, strict=True):
            self._operation(op, said)
        for number in self.walk.trace.outputs:
            for axis in self._value(number).axes:
                self.balance.pin(axis)

    def _value(self, number: int) -> Flow:
        flow = self.known.get(number)
        if flow is None:
            value = self.walk.trace.values[number]
            axes: tuple[Charges, ...] = ((),) * len(value.shape)
            constant: Tensor | None = None
            if value.origin == "parameter":
                name = value.names[0]
                axes = self.parameters.get(name) or tuple(map(self.balance.unknown, self.walk.axes[number]))
                self.parameters[name] = axes
            elif value.origin != "input":
                constant = self.walk.trace.constants.get(number)
            flow = self.known[number] = Flow(
                number, value.shape, axes, value.dtype, data=value.origin == "input", constant=constant
            )
        return flow

    def _operation(self, op: Op, said: Any) -> None:
        operands: list[Flow] = []

        def argument(x: Any) -> Any:
            if isinstance(x, Ref):
                operands.append(self._value(x.value))
                return operands[-1]
            return type(x)(map(argument, x)) if isinstance(x, (list, tuple)) else x

        args, kwargs = tuple(map(argument, op.args)), {k: argument(v) for k, v in op.kwargs.items()}
        step = Step(op, said, self.walk, self.balance, self.sums)
        law = find_law(op.name)
        charged = any(map(any, (o.axes for o in operands)))
        if said is None or (charged and law is None):
            for operand in operands:
                step.pin(operand)
        elif law is not None and (charged or law.blank):
            step.results = list(law.function(step, *args, **kwargs) or ())
        data = any(o.data for o in operands)
        for i, number in enumerate(op.outputs):
            if number is None:
                continue
            value = self.walk.trace.values[number]
            axes = step.results[i] if i < len(step.results) else None
            if axes is not None and not value.dtype.startswith(("float", "bfloat", "complex")):
                for axis in axes:
                    self.balance.pin(axis)
                axes = None
            self.known[number] = Flow(
                number, value.shape, axes if axes is not None else ((),) * len(value.shape), value.dtype,
                data=data, zero=step.zero,
            )  # fmt: skip
