"""The abstract interpretation of recordings: every axis of every value gets an expression, every
operation its say."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import MetanetError
from ..tracing import Op, Ref, Trace, is_integer
from ._flow import Take
from ._leaves import Leaves
from ._operand import Operand
from ._operation import Call, Semantics, find_rule, load_operations
from ._spaces import Spaces, Stand
from ._store import Expr, Table

INPUT = "axis of the network's input"
OUTPUT = "axis of the network's output"
UNREAD = "the example did not read it"
READ = "read as a Python number"
ALONE = "no floating-point tensor moves with it"


@dataclass
class Walk:
    """What one recording says: the axes of its values and the semantics of its operations."""

    trace: Trace
    axes: dict[int, tuple[Expr, ...]] = field(default_factory=dict)
    labels: dict[int, tuple[Expr, int]] = field(default_factory=dict)
    varying: dict[int, tuple[bool, ...]] = field(
        default_factory=dict
    )  # of constants: the axes along which they vary
    wild: set[int] = field(default_factory=set)  # values that may have uniform axes
    semantics: list[Semantics | None] = field(default_factory=list)


@dataclass
class Solver:
    """All equations of one or several recordings of one network, over shared parameters.

    Attributes:
        parameters: axes of every parameter by its first name.
        integers: which of them hold integers or truth values.
        reads: expressions that some operation computed with, rather than only moved about.
        unruled: operations without a rule.
    """

    leaves: Leaves = field(default_factory=Leaves)
    parameters: dict[str, tuple[Expr, ...]] = field(default_factory=dict)
    integers: set[str] = field(default_factory=set)
    reads: set[Expr] = field(default_factory=set)
    unruled: dict[str, list[tuple[Op, Trace]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spaces = Spaces(self.leaves)
        load_operations()

    def walk(self, trace: Trace) -> Walk:
        """Follow one recording from its inputs to its outputs."""
        walk = Walk(trace)
        for number in dict.fromkeys(trace.parameters.values()):
            value = trace.values[number]
            walk.axes[number] = self._parameter(value.names[0], value.shape)
            if is_integer(value.dtype):
                self.integers.add(value.names[0])
        for op in trace.ops:
            walk.semantics.append(self._operation(walk, op))
        for number in trace.outputs:
            operand = self._operand(walk, number)
            for expr in (*operand.axes, *([operand.label] if operand.label else [])):
                self.leaves.fix(expr, OUTPUT)
            self.reads.update(operand.axes)
        for number, place in trace.reads.items():
            operand = self._operand(walk, number)
            for expr in (*operand.axes, *([operand.label] if operand.label else [])):
                self.leaves.fix(expr, f"{READ} ({place})")
            self.reads.update(operand.axes)
        return walk

    def finish(self) -> None:
        """Take away the keys that some space does not support, and fix what the example never
        read."""
        self.leaves.settle()
        self.spaces.settle()
        alive = self._alive()
        for axes in self.parameters.values():
            for expr in axes:
                if self._tie_unread(expr, alive):
                    alive = self._alive()
        for axes in self.parameters.values():
            for expr in axes:
                for leaf in self.leaves.unbound(expr):
                    if leaf not in alive:
                        self.leaves.fix((leaf,), UNREAD)
        self._fix_alone()
        self.leaves.settle()
        self.spaces.settle()
        for axes in self.parameters.values():
            for expr in axes:
                self.leaves.settle_tables(expr, UNREAD)

    def _fix_alone(self) -> None:
        """To reorder nothing but an index buffer and what is looked up by it relabels no
        neurons."""
        leaves, floating = self.leaves, set[int]()
        for name in self.parameters.keys() - self.integers:
            floating.update(leaf for expr in self.parameters[name] for leaf in leaves.unbound(expr))
        for name in self.integers:
            for leaf in {
                x for expr in self.parameters[name] for x in leaves.unbound(expr)
            } - floating:
                leaves.fix((leaf,), ALONE)

    def _alive(self) -> set[int]:
        return {leaf for expr in self.reads for leaf in self.leaves.unbound(expr)}

    def _tie_unread(self, expr: Expr, alive: set[int]) -> bool:
        """Rows of a table that this example did not read (later positions) move as those that it
        read."""
        tied = False
        for atom in self.leaves.expand(expr):
            bound = self.leaves.binding(atom)
            if bound is None:
                continue
            if isinstance(bound, Table):
                read = self._read(bound.entries, alive)
                for entry in bound.entries if read is not None else ():
                    if alive.isdisjoint(inside := set(self.leaves.unbound(entry))) and inside:
                        self.leaves.equate(read, entry, UNREAD)
                        tied = True
            for part in bound.entries if isinstance(bound, Table) else bound.segments:
                tied |= self._tie_unread(part, alive)
        return tied

    def _read(self, entries: Sequence[Expr], alive: set[int]) -> Expr | None:
        """An entry that was read, or the first such entry of a table inside."""
        for entry in entries:
            atoms = self.leaves.expand(entry)
            inner = self.leaves.binding(atoms[0]) if len(atoms) == 1 else None
            if isinstance(inner, Table):
                if (found := self._read(inner.entries, alive)) is not None:
                    return found
            elif all(x in alive for x in self.leaves.unbound(entry)):
                return entry
        return None

    # ---------------------------------------------------------------- values

    def _parameter(self, name: str, shape: tuple[int, ...]) -> tuple[Expr, ...]:
        """Axes of a parameter, the same in all recordings; each may depend on the others until an
        operation says no."""
        if name not in self.parameters:
            leaves = self.leaves
            axes = tuple(leaves.new(n) for n in shape)
            everyone = frozenset(leaf for expr in axes for leaf in expr)
            for expr in axes:
                for leaf in expr:
                    leaves.bound_keys(leaf, [everyone - {leaf}])
            self.parameters[name] = axes
            self.spaces.seen.append(axes)
        return self.parameters[name]

    def _operand(self, walk: Walk, number: int, where: str = "the network's output") -> Operand:
        value = walk.trace.values[number]
        if number not in walk.axes and number in walk.trace.constants:
            axes, constant = self._constant(walk, number, where), walk.trace.constants[number]
            return Operand(number, value.shape, axes, value.dtype, constant, value.layout)
        if number not in walk.axes:
            axes = tuple(self.leaves.new(n) for n in value.shape)
            for expr in axes:
                self.leaves.fix(
                    expr, INPUT if value.origin == "input" else "a constant that may vary along it"
                )
            walk.axes[number] = axes
        axes = walk.axes[number]
        if number in walk.wild:
            axes = tuple(map(self.leaves.renewed, axes))
        label, ident = walk.labels.get(number, (None, -1))
        return Operand(number, value.shape, axes, value.dtype, None, value.layout, label, ident)

    def _constant(self, walk: Walk, number: int, where: str) -> tuple[Expr, ...]:
        """Fresh at each use: a uniform axis fits whatever it meets there, one along which values
        vary is fixed."""
        tensor = walk.trace.constants[number]
        if number not in walk.varying:
            walk.varying[number] = tuple(_varies(tensor, axis) for axis in range(tensor.ndim))
        axes = []
        for n, varies in zip(tensor.shape, walk.varying[number], strict=True):
            axes.append(self.leaves.new(n, wild=not varies))
            if varies:
                self.leaves.fix(axes[-1], f"a constant varies along it ({where})")
        return tuple(axes)

    # ---------------------------------------------------------------- operations

    def _operation(self, walk: Walk, op: Op) -> Semantics | None:
        leaves, where = self.leaves, f"{op.name} in {op.module or 'the network'}"
        operands: list[Operand] = []

        def argument(x: Any) -> Any:
            if isinstance(x, Ref):
                operands.append(self._operand(walk, x.value, where))
                return operands[-1]
            return type(x)(map(argument, x)) if isinstance(x, (list, tuple)) else x

        args, kwargs = argument(op.args), {k: argument(v) for k, v in op.kwargs.items()}
        shapes = tuple(None if o is None else walk.trace.values[o].shape for o in op.outputs)
        found = find_rule(op.name, op.call)
        semantics = None
        if found is not None:
            try:
                semantics = found(Call(op.name, shapes, leaves), *args, **kwargs)
            except (ValueError, TypeError, IndexError, KeyError) as e:
                raise MetanetError(
                    f"the rule for {op.name} failed on {op.args}, {op.kwargs} in {op.module!r}: {e}"
                ) from e
        if semantics is None:  # no rule, or one that passes on these arguments
            self.unruled.setdefault(op.name, []).append((op, walk.trace))
            for operand in operands:
                for expr in (*operand.axes, *([operand.label] if operand.label else [])):
                    leaves.fix(expr, f"{op.name} has no rule (in {op.module or 'the network'})")
        else:
            try:
                semantics = self._obey(semantics, operands, where)
            except ValueError as e:
                raise MetanetError(
                    f"the rule for {op.name} is wrong about {op.args} in {op.module!r}: {e}"
                ) from e
        if semantics is None or not semantics.moves:
            self.reads.update(expr for operand in operands for expr in operand.axes)
        self._outputs(walk, op, semantics, operands)
        return semantics

    def _obey(self, said: Semantics, operands: Sequence[Operand], where: str) -> Semantics:
        """Equations first, then what they make of the outputs; returns the semantics with
        expressions for takes."""
        leaves = self.leaves
        for left, right in sorted(
            said.equal, key=lambda pair: any(map(leaves.goes_by_another, pair))
        ):
            leaves.equate(left, right, where)  # an axis that goes by another one after that one
        leaves.settle()
        outputs = []
        for out in said.outputs:
            if isinstance(out, Take):
                axes = leaves.take(
                    out.operand.axes,
                    out.axis,
                    out.start,
                    out.stop,
                    out.step,
                    f"a stretch is taken ({where})",
                )
                out = axes[: out.axis] + axes[out.axis + 1 :] if out.drop else axes
            outputs.append(out)
        for expr, why in said.pins:
            leaves.fix(expr, f"{why} ({where})")
        if said.labels is None and not said.moves:
            for operand in operands:
                if operand.label is not None:
                    leaves.fix(
                        operand.label, f"integers that name its items are used as numbers ({where})"
                    )
        for axes, integers in said.stands:
            for expr in axes:
                leaves.anchor(expr)
            self.spaces.stands.append(Stand(axes, integers.label, integers.ident))
        leaves.settle()
        for space in said.spaces:
            self.spaces.add(space)
        for out in outputs:
            if out is not None:
                self.spaces.add(out)
        takes = tuple(out if isinstance(out, Take) else None for out in said.outputs)
        return replace(said, outputs=tuple(outputs), takes=takes if any(takes) else ())

    def _outputs(
        self, walk: Walk, op: Op, said: Semantics | None, operands: Sequence[Operand]
    ) -> None:
        for position, number in enumerate(op.outputs):
            if number is None:
                continue
            axes = said.outputs[position] if said is not None else None
            if axes is None:
                axes = tuple(self.leaves.new(n) for n in walk.trace.values[number].shape)
                for expr in axes:
                    self.leaves.fix(
                        expr,
                        f"result of {op.name} that is not followed (in {op.module or 'the network'})",
                    )
            walk.axes[number] = tuple(axes)
            if any(self.leaves.has_wild(a) for expr in axes for a in self.leaves.expand(expr)):
                walk.wild.add(number)
            if said is None:
                continue
            if said.labels is not None and said.labels[position] is not None:
                walk.labels[number] = (said.labels[position], number)
            elif said.moves and operands and operands[0].label is not None:
                whole = _numel(walk, number) == _numel(walk, operands[0].value)
                ident = operands[0].ident if whole else number
                walk.labels[number] = (operands[0].label, ident)


def _numel(walk: Walk, number: int) -> int:
    return torch.Size(walk.trace.values[number].shape).numel()


def _varies(tensor: Tensor, axis: int) -> bool:
    if tensor.shape[axis] <= 1 or not tensor.numel():
        return False
    first = tensor.narrow(axis, 0, 1)
    return not torch.equal(tensor, first.expand_as(tensor)) and not torch.equal(
        torch.nan_to_num(tensor), torch.nan_to_num(first).expand_as(tensor)
    )
