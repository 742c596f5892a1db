"""Canonical forms of SIRENs."""

import math

import pytest
import torch
from torch.func import functional_call, stack_module_state

from metanet.errors import MetanetError
from metanet.tasks import InrClassification
from metanet.tasks.inr_classification import canonical_siren
from networks import Siren


def stacked(count: int = 5) -> tuple[Siren, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    models = [Siren(2, 8, 6, 1).double() for _ in range(count)]
    return models[0], {k: v.detach() for k, v in stack_module_state(models)[0].items()}


def outputs(model: Siren, state: dict[str, torch.Tensor]) -> torch.Tensor:
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.stack(
        [functional_call(model, {k: v[i] for k, v in state.items()}, (x,)) for i in range(5)]
    )


@pytest.mark.parametrize("phase", [False, True])
def test_the_function_stays_and_the_signs_are_as_they_should_be(phase):
    model, state = stacked()
    out = canonical_siren(state, 30.0, phase)
    torch.testing.assert_close(outputs(model, out), outputs(model, state), rtol=1e-10, atol=1e-10)
    assert any(not torch.equal(out[k], state[k]) for k in state)
    assert (out["seq.0.weight"][..., 0] >= 0).all()
    assert (out["seq.2.weight"].sum(-2) >= 0).all()
    if phase:
        assert all((out[f"seq.{i}.bias"].abs() <= math.pi / 60 + 1e-12).all() for i in range(2))


@pytest.mark.parametrize("phase", [False, True])
def test_all_members_of_an_orbit_have_one_canonical_form(phase):
    _, state = stacked()
    moved = {k: v.clone() for k, v in state.items()}
    sign = torch.randint(2, (5, 8), generator=torch.Generator().manual_seed(2)) * 2.0 - 1
    moved["seq.0.weight"] *= sign[..., None]
    moved["seq.0.bias"] *= sign
    moved["seq.1.weight"] *= sign[:, None]
    if phase:
        moved["seq.1.bias"] += math.pi / 30 * 3
        moved["seq.2.weight"] *= -1
    a, b = canonical_siren(state, 30.0, phase), canonical_siren(moved, 30.0, phase)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-10, atol=1e-10)


def test_other_layouts_are_refused():
    with pytest.raises(MetanetError, match="needs the layout seq.0.weight"):
        canonical_siren({"layers.0.weight": torch.zeros(1, 2, 2)}, 30.0)
    with pytest.raises(MetanetError, match="choose none, sign, phase"):
        InrClassification(canonical="flip")
