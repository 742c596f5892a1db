"""From recordings to symmetries: the solved equations, read off as groups and axes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..tracing import Trace, is_integer
from ._also import also
from ._axes import Axis, leaves_of
from ._bindings import Expr
from ._groups import Keys, final_keys, group_names, leaves_of_axes
from ._interpretation import Interpretation
from ._leaves import Leaves
from ._operation import Semantics
from ._reader import Reader
from ._records import Group, TensorAxes
from ._solver import Solver
from ._spec import SymmetrySpec


@dataclass(frozen=True)
class Derivation:
    """The solved recording, for those that need more than the spec (the graph builder).

    Attributes:
        leaves: the solver; ``leaves.expand(e)`` gives an expression in solved factors.
        axes: expressions of every value's axes, of the first recording.
        semantics: what the rule said of each of its operations, in the order of ``trace.ops``;
            ``None`` without a rule.
        spec: the result.
        group_of: name of the group of every leaf that has one.
        warnings: operations without a rule, tensors that no example read.
    """

    leaves: Leaves
    axes: Mapping[int, tuple[Expr, ...]]
    semantics: tuple[Semantics | None, ...]
    spec: SymmetrySpec
    group_of: Mapping[int, str]
    warnings: tuple[str, ...]

    def factors(self, expr: Expr) -> tuple[tuple[int, int], ...]:
        """``(root, size)`` of every factor of an expression, slowest first; a concatenation counts
        as one."""
        return tuple((root, self.leaves.sizes[root]) for root in self.leaves.expand(expr))

    def axis(self, expr: Expr) -> Axis:
        """An expression as an axis of the spec."""
        return Reader(self.leaves, self.group_of).axes((expr,))[0]


def derive(trace: Trace, *others: Trace) -> Derivation:
    """All permutation symmetries that the rules can show.

    And what the activations allow besides. Sound always, maximal nearly always: the laws stand in
    ``docs/architecture.md``.

    Args:
        trace: a recording.
        others: recordings of the same network with inputs of other sizes; what comes out holds for
            all of them.
    """
    solver = Solver()
    interpretations = [Interpretation(solver, t).run() for t in (trace, *others)]
    solver.finish()
    keys = final_keys(solver.leaves, solver.parameters.values())
    names = group_names(solver.leaves, _in_order(trace, solver), keys)
    factors = also(interpretations, solver, keys).found
    spec = _spec(trace, solver, keys, names, factors)
    first = interpretations[0]
    warnings = dict.fromkeys(_warnings((trace, *others), solver))
    return Derivation(
        leaves=solver.leaves,
        axes=first.axes,
        semantics=tuple(first.semantics),
        spec=spec,
        group_of=names,
        warnings=tuple(warnings),
    )


def _in_order(trace: Trace, solver: Solver) -> dict[str, tuple[Expr, ...]]:
    """The parameters in the order in which the network reads them, then those that it does not,
    integers last."""
    first = {number: trace.values[number].names[0] for number in trace.parameters.values()}
    read: list[str] = []
    for op in trace.ops:
        read += [first[number] for number in op.inputs() if number in first]
    names = dict.fromkeys((*read, *solver.parameters))
    in_order = sorted(names, key=lambda name: name in solver.integers)
    return {name: solver.parameters[name] for name in in_order}


def _spec(
    trace: Trace,
    solver: Solver,
    keys: Keys,
    names: Mapping[int, str],
    factors: Mapping[int, frozenset[str]],
) -> SymmetrySpec:
    tensors: dict[str, TensorAxes] = {}
    used: dict[int, None] = {}  # in the order of the tensors
    leaves = solver.leaves
    for tensor, number in trace.parameters.items():
        value = trace.values[number]
        first = value.names[0]
        exprs = solver.parameters[first]
        axes = Reader(leaves, names).axes(exprs)
        moves = any(True for axis in axes for _ in leaves_of(axis))
        if is_integer(value.dtype) and not moves:
            continue  # counters, tables of positions: nothing ever happens to them
        tied = first if first != tensor else None
        tensors[tensor] = TensorAxes(shape=value.shape, dtype=value.dtype, axes=axes, tied_to=tied)
        used.update(dict.fromkeys(leaves_of_axes(leaves, exprs)))
    groups = [
        Group(
            name=names[leaf],
            size=leaves.sizes[leaf],
            keys=tuple(names[k] for k in keys.get(leaf, ())),
            kind="permutation" if leaf in keys else "fixed",
            also=factors.get(leaf, frozenset()),
        )
        for leaf in used
        if leaf in names
    ]
    return SymmetrySpec(tuple(groups), tensors)


# ---------------------------------------------------------------- warnings


def _warnings(traces: Sequence[Trace], solver: Solver) -> Iterator[str]:
    for trace in traces:
        yield from trace.warnings
    yield from solver.unknown.warnings()
    if unread := _unread(traces):
        yield (
            f"the example inputs did not read {len(unread)} tensors, which stay fixed: "
            f"{', '.join(unread[:5])}"
        )
    if len(traces) == 1:
        yield from _small_inputs(traces[0])


def _unread(traces: Sequence[Trace]) -> list[str]:
    """Names of parameters that no recording reads, integers apart."""
    parameters = traces[0].parameters
    unread = dict.fromkeys(parameters)
    for integers in traces[0].others:
        unread.pop(integers, None)
    for trace in traces:
        numbers = {*trace.outputs, *trace.reads}
        numbers.update(*(op.inputs() for op in trace.ops))
        for name, number in trace.parameters.items():
            if number in numbers:
                unread.pop(name, None)
    return list(unread)


def _small_inputs(trace: Trace) -> Iterator[str]:
    """Examples whose sizes leave open what varies along their axes."""
    for number in trace.inputs:
        value = trace.values[number]
        is_float = "float" in value.dtype
        # positions of images may well be few, tokens hardly
        small_batch = value.shape[:1] == (1,)
        small_sequence = not is_float and any(n <= 2 for n in value.shape[1:])
        if small_batch or small_sequence:
            yield (
                f"an example input has shape {value.shape}: use a batch of 2 or more and longer "
                "sequences, or trace with check_inputs of other sizes, or axes of size 1 or 2 may "
                "look free"
            )
