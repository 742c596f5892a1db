"""From recordings to symmetries: the solved equations, read off as groups and axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..tracing import Trace, is_integer
from ._also import also
from ._axes import Axis, Choice, Fixed, Leaf, axis_concat, axis_product, leaves_of
from ._leaves import Leaves
from ._operation import Semantics
from ._solver import Solver
from ._spec import Group, SymmetrySpec, TensorAxes
from ._store import Concat, Expr, Table


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
        return tuple((r, self.leaves.size((r,))) for r in self.leaves.expand(expr))

    def axis(self, expr: Expr) -> Axis:
        """An expression as an axis of the spec."""
        return _Reader(self.leaves, self.group_of).axes((expr,))[0]


def derive(trace: Trace, *others: Trace) -> Derivation:
    """All permutation symmetries that the rules can show (sound always, see DESIGN section 5).

    Args:
        trace: a recording.
        others: recordings of the same network with inputs of other sizes; what comes out holds for
            all of them.
    """
    solver = Solver()
    walks = [solver.walk(t) for t in (trace, *others)]
    solver.finish()
    keys = _keys(solver.leaves, solver.parameters.values())
    names = _names(solver.leaves, _in_order(trace, solver), keys)
    spec = _spec(trace, solver, keys, names, also(walks, solver, keys).found)
    walk = walks[0]
    return Derivation(
        solver.leaves,
        walk.axes,
        tuple(walk.semantics),
        spec,
        names,
        _warnings((trace, *others), solver, bool(others)),
    )


def _keys(leaves: Leaves, tensors: Sequence[tuple[Expr, ...]]) -> dict[int, tuple[int, ...]]:
    """Final keys of every free leaf: acyclic (of two that depend on each other the slower is the
    key) and closed."""
    found = dict.fromkeys(
        leaf for axes in tensors for expr in axes for leaf in leaves.unbound(expr)
    )
    order = {leaf: i for i, leaf in enumerate(found)}
    keys: dict[int, list[int]] = {}

    def depends(leaf: int, on: int, seen: set[int]) -> bool:
        if leaf == on:
            return True
        seen.add(leaf)
        return any(depends(k, on, seen) for k in keys.get(leaf, ()) if k not in seen)

    for leaf in reversed(order):  # from the fastest to the slowest
        if leaves.reason(leaf) is None:
            wanted = sorted((k for k in leaves.keys(leaf) if k in order), key=order.__getitem__)
            keys[leaf] = [k for k in wanted if not depends(k, leaf, set())]
    changed = True
    while changed:  # whoever depends on a leaf depends on what that leaf depends on, or loses it
        changed = False
        for leaf, held in keys.items():
            kept = [k for k in held if set(keys.get(k, ())) <= set(held)]
            if len(kept) < len(held):
                keys[leaf], changed = kept, True
    return {leaf: tuple(held) for leaf, held in keys.items()}


def _in_order(trace: Trace, solver: Solver) -> dict[str, tuple[Expr, ...]]:
    """The parameters in the order in which the network reads them, then those that it does not,
    integers last."""
    first = {number: trace.values[number].names[0] for number in trace.parameters.values()}
    read = dict.fromkeys(first[n] for op in trace.ops for n in op.inputs() if n in first)
    names = sorted({**read, **dict.fromkeys(solver.parameters)}, key=lambda n: n in solver.integers)
    return {name: solver.parameters[name] for name in names}


def _names(
    leaves: Leaves, parameters: Mapping[str, tuple[Expr, ...]], keys: Mapping[int, tuple[int, ...]]
) -> dict[int, str]:
    """Groups are named after the first tensor that has them: the layer that makes the neurons."""
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    wanted = {*keys, *(k for held in keys.values() for k in held)}
    for tensor, axes in parameters.items():
        for expr in axes:
            for leaf in leaves.unbound(expr):
                if leaf in wanted and leaf not in names:
                    stem = tensor.rpartition(".")[0] or tensor
                    n = counts[stem] = counts.get(stem, 0) + 1
                    names[leaf] = f"{stem}#{n}" if n > 1 else stem
    return names


def _spec(
    trace: Trace, solver: Solver, keys: Mapping[int, tuple[int, ...]], names: Mapping[int, str],
    factors: Mapping[int, frozenset[str]],
) -> SymmetrySpec:  # fmt: skip
    tensors = {}
    order: dict[int, int] = {}
    leaves = solver.leaves
    for tensor, number in trace.parameters.items():
        value = trace.values[number]
        axes = solver.parameters[value.names[0]]
        tied = value.names[0] if value.names[0] != tensor else None
        made = _Reader(leaves, names).axes(axes)
        if is_integer(value.dtype) and not any(True for axis in made for _ in leaves_of(axis)):
            continue  # counters, tables of positions: nothing ever happens to them
        tensors[tensor] = TensorAxes(shape=value.shape, dtype=value.dtype, axes=made, tied_to=tied)
        for expr in axes:
            for leaf in leaves.unbound(expr):
                if leaf in names:
                    order.setdefault(leaf, leaves.size((leaf,)))
    groups = tuple(
        Group(
            name=names[leaf], size=size, keys=tuple(names[k] for k in keys.get(leaf, ())),
            kind="permutation" if leaf in keys else "fixed", also=factors.get(leaf, frozenset()),
        )
        for leaf, size in order.items()
    )  # fmt: skip
    return SymmetrySpec(groups, tensors)


class _Reader:
    """Expressions as axes of a spec, for the axes of one tensor together."""

    def __init__(self, leaves: Leaves, names: Mapping[int, str]) -> None:
        self.leaves, self.names = leaves, names
        self.concats: dict[int, str] = {}  # concatenations that some other axis goes by

    def axes(self, exprs: Sequence[Expr]) -> tuple[Axis, ...]:
        before = -1
        while before < len(self.concats):  # a choice may come before the concatenation it goes by
            before = len(self.concats)
            out = tuple(self._axis(self.leaves.expand(e)) for e in exprs)
        return out

    def _axis(self, atoms: Expr) -> Axis:
        parts: list[Axis] = []
        for i, atom in enumerate(atoms):
            bound = self.leaves.binding(atom)
            if isinstance(bound, Concat):
                rest = atoms[i + 1 :]
                name = self.concats.get(atom, "")
                if (
                    self.leaves.restrict(rest, ((atom, 0),)) != rest
                ):  # what follows depends on the segment
                    inner = [
                        s + self.leaves.restrict(rest, ((atom, n),))
                        for n, s in enumerate(bound.segments)
                    ]
                    parts.append(
                        axis_concat(
                            [self._axis(self.leaves.expand(s)) for s in inner], name, bound.why
                        )
                    )
                    break
                parts.append(
                    axis_concat(
                        [self._axis(self.leaves.expand(s)) for s in bound.segments], name, bound.why
                    )
                )
            elif isinstance(bound, Table):
                name = self.concats.setdefault(
                    self.leaves.root(bound.key), f"segment{len(self.concats) or ''}"
                )
                parts.append(
                    Choice(name, tuple(self._axis(self.leaves.expand(e)) for e in bound.entries))
                )
            elif (why := self.leaves.reason(atom)) is not None:
                parts.append(Fixed(self.leaves.size((atom,)), why, self.names.get(atom, "")))
            elif atom in self.names:
                parts.append(Leaf(self.names[atom], self.leaves.size((atom,))))
            else:
                parts.append(Fixed(self.leaves.size((atom,)), "no parameter moves with it"))
        return axis_product(parts)


def _warnings(traces: Sequence[Trace], solver: Solver, checked: bool) -> tuple[str, ...]:
    out = [w for trace in traces for w in trace.warnings]
    for name, ops in solver.unruled.items():
        touched = sorted(
            {n for op, trace in ops for v in op.inputs() for n in trace.values[v].names}
        )
        tensors = (
            f" (directly: {', '.join(touched[:3])}{', ...' if len(touched) > 3 else ''})"
            if touched
            else ""
        )
        out.append(
            f"{name} has no rule: the axes it touches stay fixed{tensors}.\n"
            "  Sound, but some neurons cannot be relabelled. Add a rule: metanet/symmetry/operations/, one function."
        )
    read = [{n for op in t.ops for n in op.inputs()} | {*t.outputs, *t.reads} for t in traces]
    unread = [
        name for name in traces[0].parameters
        if name not in traces[0].others and not any(t.parameters[name] in r for t, r in zip(traces, read, strict=True))
    ]  # fmt: skip
    if unread:
        out.append(
            f"the example inputs did not read {len(unread)} tensors, which stay fixed: {', '.join(unread[:5])}"
        )
    if not checked:
        for number in traces[0].inputs:
            value = traces[0].values[number]
            lead = value.shape[:1] if "float" in value.dtype else value.shape
            small = 1 if "float" in value.dtype else 2
            if any(n == 1 for n in value.shape[:1]) or any(n <= small for n in lead[1:]):
                out.append(
                    f"an example input has shape {value.shape}: use a batch of 2 or more and longer sequences, or "
                    "trace with check_inputs of other sizes, or axes of size 1 or 2 may look free"
                )
    return tuple(dict.fromkeys(out))
