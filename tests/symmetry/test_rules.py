"""Every rule against the real operation: relabel the inputs as the rule allows, the outputs must follow."""

import inspect
import random

import pytest
import torch
from torch import Tensor

from metanet.symmetry import _semantics
from metanet.symmetry._derive import derive  # noqa: F401  (registers the rules)
from metanet.symmetry._leaves import Expr, Leaves
from metanet.symmetry._semantics import RULES, Call, Operand, find_rule
from metanet.tracing._recorder import _name

A = torch.ops.aten


def r(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# rule -> calls; the name of a case is the operation's
CASES = [
    (A.add.Tensor, (r(3, 4), r(3, 4))),
    (A.mul.Tensor, (r(2, 3, 4), r(3, 1))),
    (A.sub.Tensor, (r(4), r(2, 3, 1))),
    (A.relu.default, (r(3, 4),)),
    (A.sin.default, (r(3, 4),)),
    (A.gelu.default, (r(3, 4),)),
    (A.where.self, (r(3, 4) > 0, r(3, 4), r(4))),
    (A.clone.default, (r(3, 4),)),
    (A.view.default, (r(2, 3, 4), [6, 4])),
    (A.view.default, (r(6, 4), [2, 3, 4])),
    (A.view.default, (r(2, 3, 1, 4), [2, 12])),
    (A.view.default, (r(4, 6), [6, 4])),
    (A.view.default, (r(2, 12), [2, 3, 2, 2])),
    (A._unsafe_view.default, (r(4, 6), [2, 2, 6])),
    (A.permute.default, (r(2, 3, 4), [2, 0, 1])),
    (A.t.default, (r(3, 4),)),
    (A.transpose.int, (r(2, 3, 4), -1, 0)),
    (A.unsqueeze.default, (r(3, 4), -1)),
    (A.squeeze.dim, (r(3, 1, 4), 1)),
    (A.squeeze.dim, (r(3, 1, 4), 0)),
    (A.squeeze.default, (r(3, 1, 4),)),
    (A.alias.default, (r(3, 4),)),
    (A.detach.default, (r(3, 4),)),
    (A.expand.default, (r(3, 1), [2, 3, 4])),
    (A.select.int, (r(3, 4, 5), 1, 2)),
    (A.slice.Tensor, (r(3, 5), 1, 0, 9223372036854775807)),
    (A.slice.Tensor, (r(3, 5), 1, 1, 3)),
    (A.mm.default, (r(3, 4), r(4, 5))),
    (A.bmm.default, (r(2, 3, 4), r(2, 4, 5))),
    (A.addmm.default, (r(5), r(3, 4), r(4, 5))),
    (A.addmm.default, (r(3, 1), r(3, 4), r(4, 5))),
    (A.baddbmm.default, (r(2, 3, 5), r(2, 3, 4), r(2, 4, 5))),
    (A.mv.default, (r(3, 4), r(4))),
    (A.dot.default, (r(4), r(4))),
    (A.convolution.default, (r(2, 3, 6, 6), r(4, 3, 3, 3), r(4), [2, 2], [1, 1], [1, 1], False, [0, 0], 1)),
    (A.convolution.default, (r(2, 6, 5), r(4, 3, 2), None, [1], [0], [1], False, [0], 2)),
    (A.convolution.default, (r(2, 6, 5, 5), r(6, 1, 3, 3), r(6), [1, 1], [0, 0], [1, 1], False, [0, 0], 6)),
    (A.convolution.default, (r(2, 6, 4, 4), r(6, 2, 2, 2), r(4), [2, 2], [0, 0], [1, 1], True, [0, 0], 2)),
    (A.native_batch_norm.default, (r(2, 3, 4), r(3), r(3), r(3), r(3).abs(), False, 0.1, 1e-5)),
    (A.native_layer_norm.default, (r(2, 3, 4), [3, 4], r(3, 4), r(3, 4), 1e-5)),
    (A.native_layer_norm.default, (r(2, 3, 4), [4], None, None, 1e-5)),
    (A.native_group_norm.default, (r(2, 6, 4), r(6), r(6), 2, 6, 4, 2, 1e-5)),
    (A.max_pool2d_with_indices.default, (r(2, 3, 4, 4), [2, 2], [2, 2])),
    (A.avg_pool2d.default, (r(2, 3, 4, 4), [2, 2], [2, 2])),
    (A.avg_pool1d.default, (r(2, 3, 4), [2], [2])),
    (A._adaptive_avg_pool2d.default, (r(2, 3, 4, 4), [1, 2])),
    (A.mean.dim, (r(2, 3, 4), [-1])),
    (A.mean.default, (r(2, 3),)),
    (A.sum.dim_IntList, (r(2, 3, 4), [0, 2], True)),
    (A.amax.default, (r(2, 3, 4), [1])),
    (A._softmax.default, (r(3, 4), -1, False)),
    (A._log_softmax.default, (r(3, 4), 0, False)),
]  # fmt: skip
IDS = [f"{i}-{_name(f)}" for i, (f, _) in enumerate(CASES)]


def apply_rule(func, args):
    """The solver's part for one operation: operands with fresh leaves, then the rule's equations and pins."""
    leaves = Leaves()
    operands = [
        Operand(i, tuple(a.shape), tuple(leaves.new(n) for n in a.shape)) if isinstance(a, Tensor) else a
        for i, a in enumerate(args)
    ]
    out = func(*args)
    outs = out if isinstance(out, tuple) else (out,)
    rule = find_rule(_name(func), func)
    said = rule(Call(_name(func), tuple(tuple(o.shape) for o in outs), leaves), *operands)
    for left, right in said.equal:
        leaves.equate(left, right, "test")
    for expr, why in said.pins:
        leaves.fix(expr, why)
    return leaves, operands, outs, said


def relabel(tensor: Tensor, axes: tuple[Expr, ...], leaves: Leaves, perms: dict[int, Tensor]) -> Tensor:
    for axis, expr in enumerate(axes):
        index = torch.zeros(1, dtype=torch.long)
        for root in leaves.expand(expr):
            size = leaves.size((root,))
            own = torch.arange(size) if leaves.reason(root) else perms.setdefault(root, torch.randperm(size))
            index = (index[:, None] * size + own).flatten()
        tensor = tensor.index_select(axis, index)
    return tensor


@pytest.mark.parametrize(("func", "args"), CASES, ids=IDS)
def test_the_rule_holds_for_the_real_operation(func, args):
    leaves, operands, outs, said = apply_rule(func, args)
    for seed in range(5):
        torch.manual_seed(seed)
        perms: dict[int, Tensor] = {}
        moved = [
            relabel(a, o.axes, leaves, perms) if isinstance(a, Tensor) else a
            for a, o in zip(args, operands, strict=True)
        ]
        got = func(*moved)
        for value, want, axes in zip(got if isinstance(got, tuple) else (got,), outs, said.outputs, strict=True):
            if axes is not None:
                torch.testing.assert_close(value, relabel(want, axes, leaves, perms), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("func", "args"), CASES, ids=IDS)
def test_the_rule_is_not_vacuous(func, args):
    """Something moves, except where the operation truly pins everything."""
    leaves, operands, _, _ = apply_rule(func, args)
    free = [
        root
        for o in operands
        if isinstance(o, Operand)
        for expr in o.axes
        for root in leaves.expand(expr)
        if leaves.reason(root) is None
    ]
    if func is A.view.default and tuple(args[0].shape) == (4, 6):  # (4, 6) -> (6, 4): only the shared factor 2 could
        return
    assert free


def test_every_rule_has_a_case():
    covered = {find_rule(_name(f), f) for f, _ in CASES}
    missing = {rule.__name__ for rule in RULES.values()} - {rule.__name__ for rule in covered}
    assert not missing, f"rules without a case in CASES: {sorted(missing)}"


def test_names_belong_to_operations_that_exist():
    unknown = [n for n in RULES if n != "pointwise" and not hasattr(A, n.removeprefix("aten."))]
    assert not unknown, f"misspelt: {unknown}"


def test_two_rules_for_one_operation_are_refused():
    with pytest.raises(ValueError, match=r"two rules for aten\.mm"):
        _semantics.rule("aten.mm")(lambda call: None)


def test_a_random_chain_of_splits_keeps_products_consistent():
    """Leaves: equating random factorisations of one axis leaves every tensor with a product of the same size."""
    rng = random.Random(0)
    moved = False
    for _ in range(200):
        leaves = Leaves()
        axis = leaves.new(48)
        for _ in range(3):
            sizes = rng.choice([(2, 24), (4, 12), (3, 16), (6, 8), (2, 2, 12), (48,), (4, 3, 4)])
            other = sum((leaves.new(n) for n in sizes), ())
            leaves.equate(axis, other, "test")
            assert leaves.size(leaves.expand(axis)) == 48
            # what may move stands at the same place in both; where the products differ, everything is fixed
            assert free_factors(leaves, axis) == free_factors(leaves, other)
            moved |= bool(free_factors(leaves, axis))
    assert moved


def free_factors(leaves: Leaves, expr: Expr) -> list[tuple[int, int]]:
    """Every factor that may move, with the size of all that runs faster than it."""
    roots = leaves.expand(expr)
    return [(r, leaves.size(roots[i + 1 :])) for i, r in enumerate(roots) if leaves.reason(r) is None]


def test_sizes_that_differ_are_a_mistake_in_a_rule():
    leaves = Leaves()
    with pytest.raises(ValueError, match="sizes 3 and 4"):
        leaves.equate(leaves.new(3), leaves.new(4), "aten.mm")


def test_rules_say_what_they_are():
    undocumented = {
        f.__name__ for f in RULES.values() if not (inspect.getdoc(f) or inspect.getdoc(inspect.getmodule(f)))
    }
    assert not undocumented
