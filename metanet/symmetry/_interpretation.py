"""The abstract interpretation of a recording: every axis of every value gets an expression, every
operation its say."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import MetanetError
from ..tracing import Op, Ref, Trace, is_integer
from ._bindings import Expr
from ._flow import Take
from ._operand import Operand
from ._operation import Call, Rule, Semantics, find_rule
from ._solver import Solver
from ._spaces import Stand
from ._wild import has_wild, renewed

INPUT = "axis of the network's input"
VARIES = "a constant that may vary along it"
OUTPUT = "axis of the network's output"
READ = "read as a Python number"
_NO_LABEL: tuple[Expr | None, int] = (None, -1)
AS_NUMBERS = "integers that name its items are used as numbers"


class Interpretation:
    """One recording, followed from its inputs to its outputs.

    Args:
        solver: where its equations go.
        trace: the recording.

    Attributes:
        axes: of every value that has come up, constants apart.
        labels: of integers that name items: the axis of those, and which integers they are.
        semantics: of every operation; ``None`` where no rule had anything to say.
    """

    def __init__(self, solver: Solver, trace: Trace) -> None:
        self.solver = solver
        self.leaves = solver.leaves
        self.trace = trace
        self.axes: dict[int, tuple[Expr, ...]] = {}
        self.labels: dict[int, tuple[Expr | None, int]] = {}
        self.semantics: list[Semantics | None] = []
        self._varying: dict[int, tuple[bool, ...]] = {}  # of constants: along which axes
        self._wild: set[int] = set()  # values that may have uniform axes
        self._rules: dict[tuple[str, bool], Rule | None] = {}

    def run(self) -> "Interpretation":
        """State the equations of all operations, and fix what the network's users see."""
        for number in dict.fromkeys(self.trace.parameters.values()):
            value = self.trace.values[number]
            self.axes[number] = self.solver.parameter(value.names[0], value.shape)
            if is_integer(value.dtype):
                self.solver.integers.add(value.names[0])
        for op in self.trace.ops:
            self.semantics.append(self._operation(op))
        for number in self.trace.outputs:
            self._show(number, OUTPUT)
        for number, place in self.trace.reads.items():
            self._show(number, f"{READ} ({place})")
        return self

    def _show(self, number: int, why: str) -> None:
        """A value is seen from outside: its axes are fixed."""
        operand = self.operand(number)
        for axis in operand.touched():
            self.leaves.fix(axis, why)
        self.solver.reads.update(operand.axes)

    # ---------------------------------------------------------------- values

    def operand(self, number: int, where: str = "the network's output") -> Operand:
        """A value as rules see it.

        Args:
            where: it is used, for the reasons why a constant's axes are fixed.
        """
        value = self.trace.values[number]
        constant = self.trace.constants.get(number) if number not in self.axes else None
        if constant is not None:
            axes = self._constant(number, constant, where)
            return Operand(number, value.shape, axes, value.dtype, constant, value.layout)
        if number not in self.axes:
            self.axes[number] = self._fixed(
                value.shape, INPUT if value.origin == "input" else VARIES
            )
        axes = self.axes[number]
        if number in self._wild:
            axes = tuple([renewed(self.leaves, axis) for axis in axes])
        label, ident = self.labels.get(number, _NO_LABEL)
        return Operand(number, value.shape, axes, value.dtype, None, value.layout, label, ident)

    def _fixed(self, shape: Sequence[int], why: str) -> tuple[Expr, ...]:
        """New axes along which nothing may move."""
        axes = tuple(map(self.leaves.new, shape))
        for axis in axes:
            self.leaves.fix(axis, why)
        return axes

    def _constant(self, number: int, tensor: Tensor, where: str) -> tuple[Expr, ...]:
        """Fresh at each use: a uniform axis fits whatever it meets there, one along which values
        vary is fixed."""
        varying = self._varying.get(number)
        if varying is None:
            varying = tuple(_varies(tensor, axis) for axis in range(tensor.ndim))
            self._varying[number] = varying
        axes: list[Expr] = []
        for n, varies in zip(tensor.shape, varying, strict=True):
            axis = self.leaves.new(n, wild=not varies)
            if varies:
                self.leaves.fix(axis, f"a constant varies along it ({where})")
            axes.append(axis)
        return tuple(axes)

    # ---------------------------------------------------------------- operations

    def _operation(self, op: Op) -> Semantics | None:
        """Ask the rule, state what it says, and give the outputs their axes."""
        where = f"{op.name} in {op.module or 'the network'}"
        operands: list[Operand] = []

        def argument(x: Any) -> Any:
            if isinstance(x, Ref):
                operands.append(self.operand(x.value, where))
                return operands[-1]
            return type(x)(map(argument, x)) if isinstance(x, (list, tuple)) else x

        args = argument(op.args)
        kwargs = {key: argument(x) for key, x in op.kwargs.items()}
        semantics = self._asked(op, args, kwargs)
        if semantics is None:
            self.solver.unknown.pin(self.leaves, op, self.trace, operands)
        else:
            try:
                semantics = self._obey(semantics, operands, where)
            except ValueError as e:
                raise MetanetError(
                    f"the rule for {op.name} is wrong about {op.args} in {op.module!r}: {e}"
                ) from e
        only_moves = semantics is not None and semantics.moves
        if not only_moves:
            for operand in operands:
                self.solver.reads.update(operand.axes)
        self._outputs(op, semantics, operands)
        return semantics

    def _asked(self, op: Op, args: Any, kwargs: dict[str, Any]) -> Semantics | None:
        """What the rule says; ``None`` if there is none, or if it passes on these arguments."""
        key = (op.name, op.call is None)
        if key not in self._rules:
            self._rules[key] = find_rule(op.name, op.call)
        rule = self._rules[key]
        if rule is None:
            return None
        values = self.trace.values
        shapes = tuple([None if n is None else values[n].shape for n in op.outputs])
        try:
            return rule(Call(op.name, shapes, self.leaves), *args, **kwargs)
        except (ValueError, TypeError, IndexError, KeyError) as e:
            raise MetanetError(
                f"the rule for {op.name} failed on {op.args}, {op.kwargs} in {op.module!r}: {e}"
            ) from e

    def _obey(self, said: Semantics, operands: Sequence[Operand], where: str) -> Semantics:
        """Equations first, then what they make of the outputs; returns the semantics with
        expressions for takes."""
        leaves, equations, spaces = self.leaves, self.solver.equations, self.solver.spaces

        def goes_by_another(pair: tuple[Expr, Expr]) -> bool:
            return equations.goes_by_another(pair[0]) or equations.goes_by_another(pair[1])

        # an axis that goes by another one after that one
        for left, right in sorted(said.equal, key=goes_by_another):
            equations.equate(left, right, where)
        leaves.settle()
        if any(isinstance(out, Take) for out in said.outputs):
            said = self._without_takes(said, where)
        for axis, why in said.pins:
            leaves.fix(axis, f"{why} ({where})")
        if said.labels is None and not said.moves:
            self._use_as_numbers(operands, where)
        for axes, integers in said.stands:
            self._stand(axes, integers)
        leaves.settle()
        for space in (*said.spaces, *map(said.axes, range(len(said.outputs)))):
            if space is not None:
                spaces.add(space)
        return said

    def _without_takes(self, said: Semantics, where: str) -> Semantics:
        """The semantics with the axes of stretches in place of takes."""
        takes: list[Take | None] = []
        outputs: list[tuple[Expr, ...] | None] = []
        for output in said.outputs:
            if isinstance(output, Take):
                takes.append(output)
                outputs.append(self._taken(output, where))
            else:
                takes.append(None)
                outputs.append(output)
        return replace(said, outputs=tuple(outputs), takes=tuple(takes))

    def _use_as_numbers(self, operands: Sequence[Operand], where: str) -> None:
        """Integers are computed with: what they name is told apart."""
        for operand in operands:
            if operand.label is not None:
                self.leaves.fix(operand.label, f"{AS_NUMBERS} ({where})")

    def _stand(self, axes: tuple[Expr, ...], integers: Operand) -> None:
        """Axes are there in place of the items that integers name."""
        for axis in axes:
            self.leaves.anchor(axis)
        if integers.label is not None:
            self.solver.spaces.stands.append(Stand(axes, integers.label, integers.ident))

    def _taken(self, take: Take, where: str) -> tuple[Expr, ...]:
        """The axes of a stretch of a tensor."""
        axes = self.solver.equations.take(
            take.operand.axes,
            take.axis,
            take.start,
            take.stop,
            take.step,
            f"a stretch is taken ({where})",
        )
        return axes[: take.axis] + axes[take.axis + 1 :] if take.drop else axes

    def _outputs(self, op: Op, said: Semantics | None, operands: Sequence[Operand]) -> None:
        """Axes of the results, and what they name if they are integers."""
        for position, number in enumerate(op.outputs):
            if number is None:
                continue
            axes = self._axes_of_result(op, said, position, number)
            self.axes[number] = axes
            if any(has_wild(self.leaves, axis) for axis in axes):
                self._wild.add(number)
            if said is not None:
                self._label(number, said, position, operands)

    def _axes_of_result(
        self, op: Op, said: Semantics | None, position: int, number: int
    ) -> tuple[Expr, ...]:
        """What the rule says; fixed axes where it says nothing."""
        axes = said.axes(position) if said is not None else None
        if axes is not None:
            return axes
        why = f"result of {op.name} that is not followed (in {op.module or 'the network'})"
        return self._fixed(self.trace.values[number].shape, why)

    def _label(
        self, number: int, said: Semantics, position: int, operands: Sequence[Operand]
    ) -> None:
        """What the integers of a result name: what the rule says, or what those name that were
        rearranged."""
        label = said.labels[position] if said.labels is not None else None
        if label is not None:
            self.labels[number] = (label, number)
            return
        if not said.moves or not operands:
            return
        # ids[:, 1:] names items of the same axis as ids does, but they are other integers
        first = operands[0]
        if first.label is not None:
            is_whole = self._numel(number) == self._numel(first.value)
            ident = first.ident if is_whole else number
            self.labels[number] = (first.label, ident)

    def _numel(self, number: int) -> int:
        return torch.Size(self.trace.values[number].shape).numel()


def _varies(tensor: Tensor, axis: int) -> bool:
    """Whether the values of a constant differ along an axis; numbers that are none are alike."""
    if tensor.shape[axis] <= 1 or not tensor.numel():
        return False
    first = tensor.narrow(axis, 0, 1)
    if torch.equal(tensor, first.expand_as(tensor)):
        return False
    number = torch.nan_to_num(first).expand_as(tensor)
    return not torch.equal(torch.nan_to_num(tensor), number)
