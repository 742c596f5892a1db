"""Factors of neurons, applied to the parameters by the charges that were found: the function must
stay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metanet.symmetry._also import Also, Follower, also
from metanet.symmetry._bindings import Expr
from metanet.symmetry._charges import SCALE, SIGN, Cat, Charges, Form, Occurrence, part
from metanet.symmetry._groups import final_keys, group_names
from metanet.symmetry._interpretation import Interpretation
from metanet.symmetry._leaves import Leaves
from metanet.symmetry._solver import Solver
from metanet.tracing import Trace, record, results, tensors_in
from metanet.verification import float64, redraw
from metanet.verification._float64 import to_double
from symmetry.programs import Program


@dataclass
class Found:
    """What was found in one network."""

    trace: Trace
    leaves: Leaves
    keys: Mapping[int, tuple[int, ...]]
    names: Mapping[int, str]
    also: Also

    @property
    def by_name(self) -> dict[str, set[str]]:
        """Kinds of factors of each group."""
        return {
            self.names[leaf]: set(self.also.found.get(leaf, ()))
            for leaf in self.keys
            if leaf in self.names
        }


def find(model: nn.Module, *inputs: Tensor) -> Found:
    """Trace a network and derive what its groups allow."""
    trace = record(model.eval(), inputs, {})
    solver = Solver()
    recording = Interpretation(solver, trace).run()
    solver.finish()
    keys = final_keys(solver.leaves, solver.parameters.values())
    names = group_names(solver.leaves, solver.parameters, keys)
    return Found(trace, solver.leaves, keys, names, also([recording], solver, keys))


def change(
    found: Found, model: nn.Module, leaf: int, kind: str, *inputs: Tensor, seed: int = 0
) -> float:
    """How far the outputs of a random network move, relative to their size, when the factors of a
    leaf are applied."""
    generator = torch.Generator().manual_seed(seed)
    shape = [found.leaves.size((k,)) for k in (*found.keys[leaf], leaf)]
    factors = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
    if kind == "sign":
        factors = (torch.rand(shape, generator=generator) < 0.5).double() * 2 - 1
        factors.view(-1)[:2] = torch.tensor([1.0, -1.0])
    model = to_double(model.eval())
    usual = {k: v for k, v in model.state_dict().items() if k in found.trace.parameters}
    state = redraw(usual, generator)
    others = {k: v for k, v in model.state_dict().items() if k not in usual}
    charges = found.also.charges(leaf, kind)
    moved, seen = {}, 0
    for name, tensor in state.items():
        first = found.trace.values[found.trace.parameters[name]].names[0]
        moved[name] = (
            _scaled(tensor, charges[first], leaf, factors, found) if first in charges else tensor
        )
        seen += not torch.equal(moved[name], tensor)
    assert seen, "no parameter is multiplied by anything"
    args = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad(), float64():
        want, got = (
            results(functional_call(model, {**s, **others}, args, tie_weights=False))
            for s in (state, moved)
        )
    size = max(float(a.abs().max()) for a in want)
    return max(float((a - b).abs().max()) for a, b in zip(want, got, strict=True)) / max(
        size, 1e-300
    )


def law_error(
    function: Callable, tensors: Sequence[Tensor], seed: int = 0
) -> tuple[float, set[str]]:
    """A program on parameters whose outputs are free: a random solution of all charges, against the
    real operation.

    Returns:
        The largest difference between outputs of charged parameters and charged outputs, and the
        kinds of charges that parameters can have.
    """
    trace = record(Program(function, tensors), (torch.zeros(1),), {})
    solver = Solver()
    recording = Interpretation(solver, replace(trace, outputs=())).run()
    outputs = {number: recording.axes[number] for number in trace.outputs}
    for axes in outputs.values():
        solver.reads.update(axes)
        solver.spaces.add(axes)
    solver.finish()
    named = {**solver.parameters, **{f"out{n}": axes for n, axes in outputs.items()}}
    # One factor for a neuron wherever it is: leaves that keys are left out of have charges of their
    # own too.
    free_leaves = final_keys(solver.leaves, named.values())
    keys = {leaf: () for leaf in free_leaves if not solver.leaves.is_wild(leaf)}
    found = Found(trace, solver.leaves, keys, {}, also([recording], solver, keys))
    balance = found.also._balance
    follower = Follower(recording, balance, dict(found.also._parameters))
    balance.system.solved.clear()  # the same equations again, now with the outputs' charges at hand
    follower.run()
    generator = torch.Generator().manual_seed(seed)
    free = [u for u in range(2 * len(balance.system.owner)) if u not in balance.system.solved]
    values = {u: int(torch.randint(1, 4, (), generator=generator)) if u & 1 else 1 for u in free}
    factors = {
        leaf: torch.rand(solver.leaves.size((leaf,)), generator=generator).double() + 0.5
        for leaf in balance.targets
    }

    def charged(tensor: Tensor, exprs: Sequence[Expr], axes: Sequence[Charges]) -> Tensor:
        for kind in (SIGN, SCALE):

            def value(form: Form, kind: int = kind) -> Form:
                return {
                    0: sum(
                        c * values[u] for u, c in part(balance.system.reduced(form), kind).items()
                    )
                }

            known = [
                balance.mapped(balance.complete(e, a), value)
                for e, a in zip(exprs, axes, strict=True)
            ]
            for leaf, s in factors.items():
                signs = torch.arange(len(s)).double() % 2 * 2 - 1
                tensor = _scaled(tensor, known, leaf, s if kind == SCALE else signs, found)
        return tensor

    moved = []
    for i, tensor in enumerate(tensors):
        axes = found.also._parameters.get(f"p{i}")
        moved.append(tensor if axes is None else charged(tensor, solver.parameters[f"p{i}"], axes))
    worst = 0.0
    for number, want, got in zip(
        trace.outputs, tensors_in(function(*tensors)), tensors_in(function(*moved)), strict=True
    ):
        integers = not (want.is_floating_point() or want.is_complex())
        want = want if integers else charged(want, outputs[number], follower.value(number).axes)
        wide = torch.promote_types(want.dtype, torch.float64)
        worst = max(
            worst,
            float((want.to(wide) - got.to(wide)).abs().nan_to_num().max()) if want.numel() else 0.0,
        )
    return worst, {("sign", "scale")[u & 1] for u in free}


def _scaled(
    tensor: Tensor, axes: Sequence[Charges], leaf: int, factors: Tensor, found: Found
) -> Tensor:
    """Every entry times the factor of its neuron to the power of its charge."""
    leaves = found.leaves

    def size(axis: Charges) -> int:
        return leaves.size(tuple(n.root for n in axis))

    def restrict(axis: Charges, key: int, segment: int) -> Charges:
        out: list = []
        for n in axis:
            out += (
                n.parts[segment] if not isinstance(n, (Occurrence, Cat)) and n.key == key else (n,)
            )
        return tuple(out)

    for i, axis in enumerate(axes):
        if len(axis) > 1:
            inside = [*axes[:i], *((n,) for n in axis), *axes[i + 1 :]]
            return _scaled(
                tensor.reshape([size(a) for a in inside]), inside, leaf, factors, found
            ).reshape(tensor.shape)
    for i, axis in enumerate(axes):
        if axis and isinstance(axis[0], Cat):
            parts = []
            for n, segment in enumerate(axis[0].parts):
                inside = [restrict(a, axis[0].root, n) for a in axes]
                inside[i] = segment
                piece = tensor.split([size(s) for s in axis[0].parts], i)[n]
                parts.append(_scaled(piece, inside, leaf, factors, found))
            return torch.cat(parts, i)
    roots = [axis[0].root if axis else None for axis in axes]
    for i, axis in enumerate(axes):
        if axis and axis[0].root == leaf and axis[0].form:
            places = [*(roots.index(k) for k in found.keys[leaf]), i]
            assert all(roots.count(k) == 1 for k in found.keys[leaf])
            order = sorted(range(len(places)), key=places.__getitem__)
            shape = [1] * tensor.ndim
            for place, n in zip(places, factors.shape, strict=True):
                shape[place] = n
            tensor = tensor * factors.permute(order).reshape(shape) ** float(axis[0].form[0])
    return tensor
