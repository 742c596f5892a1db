"""An operation of one's own: reported while it has no rule, followed as soon as it has one."""

import pytest
import torch
from torch import nn

import metanet
from metanet.symmetry import Call, Follow, Operand, Semantics, rule
from metanet.symmetry._operation import LAWS, RULES
from metanet.symmetry._unknown import UnknownOps


@torch.library.custom_op("metanet_tests::tripled", mutates_args=())
def tripled(x: torch.Tensor) -> torch.Tensor:
    return 3 * x


class Tripling(nn.Module):
    """The same unknown operation twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 7), nn.Linear(7, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(tripled(self.second(tripled(self.first(x)))))


@pytest.fixture
def with_a_rule():
    @rule("metanet_tests.tripled", linear=True)
    def triple(call: Call, x: Operand) -> Semantics:
        """Three times as much."""
        return Semantics(outputs=(x.axes,), flow=(Follow(x, tuple(range(len(x)))),))

    yield triple
    for register in (RULES, LAWS):
        register.remove("metanet_tests.tripled")


def test_an_unknown_operation_is_reported_once_and_pins_what_it_touches():
    arch = metanet.trace(Tripling(), torch.randn(4, 3))
    (warning,) = [w for w in arch.warnings if "no rule" in w]
    assert warning.startswith("metanet_tests.tripled has no rule: the axes it touches stay fixed")
    assert "metanet/symmetry/operations/" in warning
    assert not arch.spec.groups
    assert "metanet_tests.tripled has no rule (in the network)" in arch.spec.explain("first.weight")


def test_the_report_names_the_tensors_that_are_touched_directly():
    assert list(UnknownOps().warnings()) == []

    class Direct(Tripling):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ tripled(self.first.weight).T

    arch = metanet.trace(Direct(), torch.randn(4, 3))
    assert any("(directly: first.weight)" in w for w in arch.warnings)


def test_one_function_adds_an_operation(with_a_rule):
    """With ``linear=True`` it has a law too: negated neurons stay negated."""
    model, x = Tripling(), torch.randn(4, 3)
    arch = metanet.trace(model, x)
    assert not any("no rule" in w for w in arch.warnings)
    assert [g.size for g in arch.spec.groups] == [7, 5]
    assert all(g.also == {"sign", "scale"} for g in arch.spec.groups)
    assert metanet.verify(model, arch.spec, x).change < 1e-10
