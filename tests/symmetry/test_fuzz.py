"""Random programs of all kinds of operations: whatever symmetries are found in them, they hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metanet
from metanet.symmetry import leaves_of
from metanet.testing import STEPS, Program, assert_graph

# Of the spread of outputs that may be nearly constant (sums over a softmax): rounding reaches 1e-9,
# mistakes 1e-2.
TOLERANCE = 1e-8


# A seed is the program that it was only with the kinds of steps that there were.
FIRST = [
    "linear", "activation", "softmax", "combine", "parameter", "gate", "normalise", "normalise_groups",
    "root_mean_square", "reduce", "gram", "product", "attention", "convolve", "mixture", "contract",
    "recurrent",
    "split_axis", "join_axes", "permute", "stretch", "select", "concatenate", "rotate_halves", "stack",
    "shuffle_channels", "in_order", "look_up", "gather_chosen", "positions", "written", "pad", "spread",
    "windows",
]  # fmt: skip
COMPLEX = [
    name for name, function in STEPS.items() if function.__module__.endswith("_steps_complex")
]


def assert_sound(program: Program) -> None:
    arch = metanet.trace(program, program.example)
    report = metanet.verify(program, arch.spec, program.example, sensitivity=False, draws=3)
    assert report.change < TOLERANCE, f"{report}: {', '.join(program.kinds)}"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_symmetries_of_random_programs_hold(seed):
    assert_sound(Program(seed))


@pytest.mark.parametrize("seed", [2192, 4379])
def test_which_of_several_equal_items_topk_takes_depends_on_where_all_of_them_are(seed):
    assert_sound(Program(seed, kinds=FIRST))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_symmetries_and_graphs_of_complex_programs_hold(seed):
    program = Program(
        seed,
        kinds=[*COMPLEX, "linear", "activation", "split_axis", "permute", "concatenate", "combine"],
    )
    assert_sound(program)
    assert_graph(metanet.trace(program, program.example))


def test_complex_parameters_of_random_programs_move():
    """The twin of the above."""
    specs = [
        metanet.trace(p, p.example).spec
        for p in (Program(seed, kinds=COMPLEX) for seed in range(8))
    ]
    tensors = [t for spec in specs for t in spec.tensors.values() if t.is_complex]
    assert sum(any(True for axis in t.axes for _ in leaves_of(axis)) for t in tensors) > 10


def test_programs_are_of_all_kinds_and_have_symmetries():
    """The twin: a fuzzer whose programs had nothing to move would find nothing."""
    kinds, groups, keyed = set(), 0, 0
    for seed in range(100):
        program = Program(seed)
        kinds.update(program.kinds)
        spec = metanet.trace(program, program.example).spec
        groups += len(spec.groups)
        keyed += sum(bool(g.keys) for g in spec.groups)
    assert kinds == set(STEPS)
    assert groups > 100
    assert keyed > 20


def test_a_program_is_the_same_again():
    a, b = Program(7), Program(7)
    assert a.kinds == b.kinds
    assert all(torch.equal(x, y) for x, y in zip(a(a.example), b(b.example), strict=True))
