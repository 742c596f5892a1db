"""The copy that is run: the original untouched, the same state for every run, readable errors."""

import copy

import pytest
import torch
from torch import nn

from metanet.errors import MetanetError
from metanet.symmetry import Group
from metanet.verification import verify
from metanet.verification._network import change_of
from verification.specs import AB_AXES, AB_GROUPS, MLP_AXES, MLP_GROUPS, mlp, spec_of


@pytest.mark.parametrize(
    "value",
    [float("-inf"), torch.finfo(torch.float32).min, torch.finfo(torch.float64).min],
    ids=str,
)
def test_masked_outputs_compare_equal(value):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x).masked_fill(torch.tensor([True, False, False]), value), {
                "n": x.shape[0]
            }

    axes = {f"body.{n}": a for n, a in MLP_AXES.items()}
    report = verify(Masked(), spec_of(Masked(), MLP_GROUPS, axes), torch.randn(5, 4))
    assert report.ok
    assert min(report.sensitivity.values()) > 1e-3
    del axes["body.2.bias"]
    assert verify(Masked(), spec_of(Masked(), MLP_GROUPS, axes), torch.randn(5, 4)).change > 1e-3


def test_a_mask_that_moves_is_a_change():
    class Masked(nn.Sequential):
        def forward(self, x):
            return (
                super().forward(x).masked_fill(self[0](x)[:, :3] > 0, float("-inf"))
            )  # reads single hidden units

    axes = {n: ("a" if x == "b" else x for x in a) for n, a in MLP_AXES.items()}
    model, spec = Masked(*mlp()), spec_of(mlp(), MLP_GROUPS, {n: tuple(a) for n, a in axes.items()})
    assert verify(model, spec, torch.randn(5, 4)).change == float("inf")


def test_numbers_that_became_nan_are_a_change():
    want = torch.tensor([0.0, 1.0, 2.0])
    assert change_of(torch.tensor([0.0, float("nan"), 2.0]), want) == float("inf")
    assert change_of(want + 0.01, want) == pytest.approx(0.01)
    assert change_of(torch.tensor([3.0]), torch.tensor([2.0])) == pytest.approx(
        0.5
    )  # one number has no spread
    assert change_of(torch.zeros(3), torch.zeros(3)) == 0


def test_each_output_is_measured_by_its_own_spread():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = mlp(), nn.Linear(4, 3)

        def forward(self, x):
            return {"large": 1e9 * self.large(x), "small": 1e-9 * self.small(x)}

    axes = {f"small.{n}": a for n, a in MLP_AXES.items()}
    report = verify(Two(), spec_of(Two(), MLP_GROUPS, axes), torch.randn(5, 4))
    assert report.ok
    assert not report.unseen
    del axes["small.2.bias"]
    assert verify(Two(), spec_of(Two(), MLP_GROUPS, axes), torch.randn(5, 4)).change > 1e-3


def test_a_network_that_draws_random_numbers_is_refused():
    class Noisy(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + torch.rand_like(x[:, :1])

    model, spec, x = Noisy(*mlp()), spec_of(mlp(), MLP_GROUPS, MLP_AXES), torch.randn(5, 4)
    before = torch.get_rng_state()
    with pytest.raises(MetanetError, match="Noisy is not deterministic"):
        verify(model, spec, x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_of_the_caller_is_not_touched():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3)).train()
    model[3].eval()
    before, x = copy.deepcopy(model.state_dict()), torch.randn(5, 4, requires_grad=True)
    copied = x.detach().clone()
    axes = {"0.weight": ("a", None), "0.bias": ("a",), "3.weight": (None, "a")}
    axes |= {f"1.{n}": ("a",) for n in ("weight", "bias", "running_mean", "running_var")}
    assert verify(model, spec_of(model, [Group(name="a", size=6)], axes), x).ok
    assert all(
        torch.equal(t, before[n]) and t.dtype == before[n].dtype
        for n, t in model.state_dict().items()
    )
    assert [m.training for m in model] == [True, True, True, False]
    assert torch.equal(x, copied)
    assert x.grad is None
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert torch.get_default_dtype() == torch.float32


class Remembers(nn.Module):
    """Keeps tensors made from its parameters, counts its calls in a buffer and writes into its
    input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.kept, self.cache = nn.Linear(4, 6), nn.Linear(6, 3), None, {}
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.kept is None:
            self.kept = self.a.weight.exp()
        if not self.cache:
            self.cache["bias"] = self.a.bias.exp()
        self.calls += 1
        return self.b(torch.tanh(x.mul_(2) @ self.kept.T + self.cache["bias"])) * self.calls


def test_what_a_network_remembers_does_not_outlive_a_run():
    model, x = Remembers(), torch.randn(5, 4, dtype=torch.float64)
    before = x.clone()
    report = verify(model, spec_of(model, AB_GROUPS, AB_AXES), x)
    assert torch.equal(x, before)
    assert report.ok
    assert min(report.sensitivity.values()) > 1e-3
    assert model.kept is None
    assert model.cache == {}
    assert model.calls == 0


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_see_their_new_weights(kind):
    """They keep a second list of their parameters, which replacing a parameter would not reach."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model = Recurrent()
    report = verify(
        model,
        spec_of(model, [Group(name="g", size=5)], {"head.weight": (None, "g")}),
        torch.randn(2, 4, 3),
    )
    assert report.change > 1e-3  # the cells were forgotten
    rows = Group(name="r", size=model.rnn.weight_hh_l0.shape[0])
    spec = spec_of(
        model, [rows], {"rnn.weight_hh_l0": ("r", None), "rnn.weight_ih_l0": ("r", None)}
    )
    assert min(verify(model, spec, torch.randn(2, 4, 3)).sensitivity.values()) > 1e-3


def test_inputs_may_be_nested_and_named():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, pair, *, options=None, more):
            return {"out": (self.body(pair[0] + more["x"][0]), pair[1])}

    spec = spec_of(Nested(), MLP_GROUPS, {f"body.{n}": a for n, a in MLP_AXES.items()})
    x, ids = torch.randn(5, 4), torch.arange(3)
    report = verify(Nested(), spec, (x, ids), options="any", more={"x": [x]})
    assert report.ok
    assert not report.unseen


def test_a_spec_of_another_architecture_is_explained():
    spec, x = spec_of(mlp(), MLP_GROUPS, MLP_AXES), torch.randn(5, 4)
    with pytest.raises(
        MetanetError,
        match=r"the spec names tensors that Sequential does not have: 2\.weight, 2\.bias",
    ):
        verify(
            nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.Linear(6, 3)),
            spec,
            x,
        )
    with pytest.raises(
        MetanetError, match=r"Sequential has tensors that the spec does not name: 6\.weight"
    ):
        verify(nn.Sequential(*mlp(), nn.ReLU(), nn.Linear(3, 3)), spec, x)
    with pytest.raises(
        MetanetError, match=r"0\.weight of Sequential is \(6, 5\), but \(6, 4\) in the spec"
    ):
        verify(nn.Sequential(nn.Linear(5, 6), *list(mlp())[1:]), spec, x)


def test_inputs_and_models_that_cannot_run_are_explained():
    model, spec = mlp(), spec_of(mlp(), MLP_GROUPS, MLP_AXES)
    with torch.device("meta"):
        hollow = mlp()
    with pytest.raises(MetanetError, match=r"0\.weight is on the meta device: materialise it"):
        verify(hollow, spec, torch.randn(5, 4))
    with pytest.raises(MetanetError, match="input 0 is on the meta device"):
        verify(model, spec, torch.randn(5, 4, device="meta"))
    with pytest.raises(MetanetError, match="the forward pass of Sequential raised RuntimeError"):
        verify(model, spec, torch.randn(5, 3))
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(MetanetError, match="the forward pass of Sequential raised TypeError"):
        verify(model, spec)

    class Silent(nn.Sequential):
        def forward(self, x):
            return "nothing"

    with pytest.raises(MetanetError, match="Silent returned str without a tensor"):
        verify(Silent(*mlp()), spec, torch.randn(5, 4))
