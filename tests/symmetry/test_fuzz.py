"""Random programs of all kinds of operations: whatever symmetries are found in them, they hold."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metanet
from metanet.testing import STEPS, Program

# Of the spread of outputs that may be nearly constant (sums over a softmax): rounding reaches 1e-9, mistakes 1e-2.
TOLERANCE = 1e-8


@settings(max_examples=200, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_symmetries_of_random_programs_hold(seed):
    program = Program(seed)
    arch = metanet.trace(program, program.example)
    report = metanet.verify(program, arch.spec, program.example, sensitivity=False, draws=3)
    assert report.change < TOLERANCE, f"{report} in Program({seed}): {', '.join(program.kinds)}"


def test_programs_are_of_all_kinds_and_have_symmetries():
    """The twin: a fuzzer whose programs had nothing to move would find nothing."""
    kinds, groups, keyed = set(), 0, 0
    for seed in range(60):
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
