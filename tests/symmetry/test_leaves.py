"""The algebra: equating, cutting and keys keep every tensor's axes consistent."""

import random

import numpy as np
import pytest

import metanet
from metanet.symmetry._bindings import Expr, Segments, Table
from metanet.symmetry._equations import Equations
from metanet.symmetry._leaves import Leaves
from metanet.symmetry._spaces import Spaces
from metanet.symmetry._wild import renewed
from metanet.testing import Program


def rows(leaves: Leaves, expr: Expr) -> list[tuple[tuple[int, int], ...]]:
    """For every position along an axis the items that it belongs to, of all leaves that move or
    that others go by."""
    return list(_grid(leaves, leaves.expand(expr)).flat)


def _grid(leaves: Leaves, atoms: Expr) -> np.ndarray:
    """The rows of a product, with one axis for each factor."""
    shape = [leaves.size((a,)) for a in atoms]
    for n, atom in enumerate(atoms):
        bound = leaves.binding(atom)
        if isinstance(bound, Segments):
            parts = []
            for i, segment in enumerate(bound.parts):
                before, behind = (
                    leaves.restrict(e, ((atom, i),)) for e in (atoms[:n], atoms[n + 1 :])
                )
                inside = _grid(leaves, leaves.expand(before + segment + behind))
                parts.append(inside.reshape(*shape[:n], leaves.size(segment), *shape[n + 1 :]))
            return np.concatenate(parts, n)
    grid = np.empty(shape, dtype=object)
    told = [leaves.reason(a) is None or bool(leaves.dependents(a)) for a in atoms]
    for place in np.ndindex(*shape):
        grid[place] = tuple((a, i) for a, i, t in zip(atoms, place, told, strict=True) if t)
    return grid


def test_a_random_chain_of_splits_keeps_products_consistent():
    """Equating random factorisations of one axis leaves every tensor with a product of the same
    size."""
    rng = random.Random(0)
    moved = False
    for _ in range(200):
        equations = Equations()
        leaves = equations.leaves
        axis = leaves.new(48)
        for _ in range(3):
            sizes = rng.choice([(2, 24), (4, 12), (3, 16), (6, 8), (2, 2, 12), (48,), (4, 3, 4)])
            other = sum((leaves.new(n) for n in sizes), ())
            equations.equate(axis, other, "test")
            assert leaves.size(leaves.expand(axis)) == 48
            assert rows(leaves, axis) == rows(leaves, other)
            moved |= any(rows(leaves, axis))
    assert moved


def test_a_random_chain_of_cuts_agrees_position_by_position():
    """However an axis is cut and split, equated axes have the same items at every position."""
    rng = random.Random(1)
    moved = False
    for _ in range(300):
        equations = Equations()
        leaves = equations.leaves
        axes = [leaves.new(24)]
        for _ in range(4):
            if rng.random() < 0.5:
                cuts = sorted(rng.sample(range(1, 24), rng.choice([1, 2])))
                other = leaves.concat(
                    leaves.new(b - a) for a, b in zip([0, *cuts], [*cuts, 24], strict=True)
                )
            else:
                sizes = rng.choice([(2, 12), (3, 8), (4, 6), (2, 3, 4)])
                other = sum((leaves.new(n) for n in sizes), ())
            equations.equate(axes[-1], other, "test")
            axes.append(other)
            spaces = Spaces(equations)
            for e in axes:  # each is an axis of some tensor: what it does not support is taken away
                spaces.add((e,))
            spaces.settle()
            assert all(rows(leaves, e) == rows(leaves, other) for e in axes)
            moved |= any(rows(leaves, other))
    assert moved


def test_sizes_that_differ_are_a_mistake_in_a_rule():
    equations = Equations()
    leaves = equations.leaves
    with pytest.raises(ValueError, match="sizes 3 and 4"):
        equations.equate(leaves.new(3), leaves.new(4), "aten.mm")


def test_what_depends_on_an_axis_becomes_a_table_when_it_is_cut():
    """A fused projection: cutting q, k, v apart gives each of them dims of its own."""
    equations = Equations()
    leaves = equations.leaves
    fused = leaves.new(24, ())
    which, dims = leaves.new(3), leaves.new(8)
    equations.equate(fused, which + dims, "view")
    q, k, v = (equations.take((which, dims), 0, i, i + 1, 1, "unbind")[1] for i in range(3))
    assert len({*map(leaves.expand, (q, k, v))}) == 3
    equations.equate(q, k, "scores")
    assert isinstance(leaves.binding(leaves.expand(dims)[0]), Table)
    equations.equate(k, v, "all the same")
    assert leaves.expand(dims) == leaves.expand(q)  # entries that agree make no table


def test_a_table_without_its_key_collapses():
    equations = Equations()
    leaves = equations.leaves
    which, dims = leaves.new(2), leaves.new(4)
    equations.equate(leaves.new(8, ()), which + dims, "view")
    first = equations.take((which, dims), 0, 0, 1, 1, "select")[1]
    second = equations.take((which, dims), 0, 1, 2, 1, "select")[1]
    assert leaves.expand(first) != leaves.expand(second)
    Spaces(equations).add((dims,))  # a tensor with the dims and nothing that says which
    assert leaves.expand(first) == leaves.expand(second)


@pytest.mark.parametrize(
    ("space", "kept"), [("hd", True), ("d", False), ("hhd", False), ("hdd", True)]
)
def test_keys_need_their_leaf_exactly_once(space, kept):
    equations = Equations()
    leaves = equations.leaves
    h, d = leaves.new(3), leaves.new(4)
    equations.equate(leaves.new(12, ()), h + d, "view")
    Spaces(equations).add([{"h": h, "d": d}[letter] for letter in space])
    (head,), (dim,) = leaves.expand(h), leaves.expand(d)
    assert (head in leaves.keys(dim)) == kept


def test_keys_of_merged_leaves_are_those_of_both():
    equations = Equations()
    leaves = equations.leaves
    pairs = []
    for _ in range(2):
        h, d = leaves.new(3), leaves.new(4)
        equations.equate(leaves.new(12, ()), h + d, "view")
        pairs.append((h, d))
    (h1, d1), (h2, d2) = pairs
    equations.equate(
        d1, d2, "scores"
    )  # the dims first: their heads are the same only after the next equation
    equations.equate(h1, h2, "scores")
    leaves.settle()
    (dim,) = leaves.expand(d1)
    assert leaves.keys(dim) == {*leaves.expand(h1)}


def test_a_uniform_axis_fits_several_others():
    equations = Equations()
    leaves = equations.leaves
    wild, a, b = leaves.new(4, wild=True), leaves.new(4), leaves.new(4)
    for other in (a, b):
        equations.equate(renewed(leaves, wild), other, "mul")
    assert leaves.expand(a) != leaves.expand(b)


def test_blocks_of_two_sizes_meet_in_their_intersections():
    """Four of 3 against three of 4."""
    equations = Equations()
    leaves = equations.leaves
    axis = leaves.new(12)
    equations.equate(axis, leaves.new(4) + leaves.new(3), "one norm")
    equations.equate(axis, leaves.new(3) + leaves.new(4), "another norm")
    sizes = [leaves.size((leaf,)) for leaf in leaves.unbound(axis)]
    assert sizes == [3, 2, 2, 3]  # 3 | 1 | 2 | 2 | 1 | 3: single items have no leaf
    (concat,) = {b.why for a in leaves.expand(axis) if isinstance(b := leaves.binding(a), Segments)}
    assert concat == "one norm and another norm"


def test_a_shuffled_concatenation_is_a_table_and_its_key():
    """``(2, 6)`` of two parts of 6, the 6 first: against a leaf of 12 both parts stay apart."""
    equations = Equations()
    leaves = equations.leaves
    one, other, weight = leaves.new(6), leaves.new(6), leaves.new(12, ())
    which, item = leaves.new(2), leaves.new(6)
    equations.equate(leaves.concat([one, other]), which + item, "view")
    equations.equate(weight, item + which, "convolution")
    table, key = map(leaves.binding, leaves.expand(weight))
    assert isinstance(table, Table) and isinstance(key, Segments)
    assert [leaves.expand(e) for e in table.parts] == [leaves.expand(one), leaves.expand(other)]
    assert rows(leaves, weight)[0::2] == rows(leaves, one)
    assert rows(leaves, weight)[1::2] == rows(leaves, other)
    equations.equate(weight, leaves.new(2) + leaves.new(6), "a norm of two groups")
    assert rows(leaves, weight)[0::2] == rows(leaves, one)
    assert len(set(leaves.unbound(one)) | set(leaves.unbound(other))) > 2


@pytest.mark.parametrize(("seed", "groups"), [(399, 4), (542, 0)])
def test_a_leaf_that_is_its_own_key_can_be_cut(seed, groups):
    """Reshapes may tie a factor to another that depends on it; cutting the one once ran for ever."""
    program = Program(seed)
    assert len(metanet.trace(program, program.example).spec.groups) == groups
