"""Random parameters at which networks of any depth work, and show what they do."""

import pytest
import torch
from torch import nn

from metanet.errors import MetanetError
from metanet.symmetry import Concat, Fixed, Group, Leaf, Product
from metanet.verification import redraw, verify
from metanet.verification._redraw import calibrated
from verification.specs import AB_AXES, AB_GROUPS, spec_of


def test_redraw_keeps_what_a_network_needs():
    state = {
        "bn.running_var": torch.ones(500), "bn.weight": torch.ones(500), "bn.bias": torch.zeros(500),
        "ls.gamma": torch.full((500,), 1e-5), "A_log": torch.arange(1, 501).log(),
        "logit_scale": torch.tensor(2.65),
        "w.parametrizations.weight.original0": torch.zeros(500, 1), "fc.weight": torch.zeros(500, 400),
        "experts": torch.zeros(8, 30, 50), "pos_embed": torch.zeros(1, 50, 40),
        "mask_token": torch.zeros(1, 1, 500),
        "count": torch.tensor(3), "empty": torch.zeros(0), "garbage": torch.full((500,), float("nan")),
        "half": torch.ones(500, dtype=torch.bfloat16),
    }  # fmt: skip
    new = redraw(state, torch.Generator().manual_seed(0))
    assert all(new[n].dtype == t.dtype and new[n].shape == t.shape for n, t in state.items())
    assert all(torch.isfinite(t).all() for t in new.values())
    assert new["bn.running_var"].min() > 0
    assert new["w.parametrizations.weight.original0"].min() > 0
    assert 0.3 < new["bn.weight"].std() < 0.5
    assert new["bn.weight"].min() > 0
    assert abs(new["bn.weight"].mean() - 1) < 0.1
    assert len(new["bn.weight"].unique()) > 490
    for name in ("bn.bias", "ls.gamma", "mask_token", "garbage"):
        assert 0.4 < new[name].std() < 0.6, name
    old = state["A_log"]
    assert ((new["A_log"] - old).abs() <= 0.6 * old + 0.2 * old.mean()).all()
    assert 0.5 < new["logit_scale"] < 5
    assert abs(new["fc.weight"].std() * 20 - 1) < 0.1
    assert 0.8 < new["experts"].std() * 50**0.5 < 1.2
    assert 0.8 < new["pos_embed"].std() < 1.2
    again = redraw(state, torch.Generator().manual_seed(0))
    assert all(torch.equal(again[n], new[n]) for n in state)


def test_both_parts_of_complex_tensors_are_drawn():
    state = {
        "gain": torch.ones(500, dtype=torch.complex64), "w": torch.zeros(30, 40, dtype=torch.complex128),
        "decay": torch.complex(torch.full((500,), -0.5), torch.arange(500.0)).conj(),
    }  # fmt: skip
    new = redraw(state, torch.Generator().manual_seed(0))
    assert all(new[n].dtype == t.dtype and new[n].shape == t.shape for n, t in state.items())
    assert new["gain"].real.min() > 0
    assert 0.4 < new["gain"].imag.std() < 0.6
    assert 0.9 < new["w"].abs().square().mean().sqrt() * 40**0.5 < 1.1
    assert 0.9 < new["w"].real.std() / new["w"].imag.std() < 1.1
    assert new["decay"].real.max() < 0
    assert ((new["decay"].imag - state["decay"].imag).abs() > 0).all()


def test_modules_tell_embeddings_and_kernels_apart():
    model = nn.ModuleDict(
        {"e": nn.Embedding(90, 70), "c": nn.Conv1d(40, 30, 5), "l": nn.Linear(40, 50, bias=False)}
    )
    new = redraw(
        model.state_dict(), torch.Generator().manual_seed(0), model=model, gain=0.5, offset=0.1
    )
    assert 0.9 < new["e.weight"].std() / 0.5 < 1.1
    assert 0.9 < new["c.weight"].std() / 0.5 * 200**0.5 < 1.1
    assert 0.9 < new["l.weight"].std() / 0.5 * 40**0.5 < 1.1
    assert 0.05 < new["c.bias"].std() < 0.15


class ZeroInit(nn.Module):
    """A residual branch that is switched off at initialisation, in the three usual ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gamma = (
            nn.Linear(4, 6),
            nn.Linear(6, 4),
            nn.Parameter(torch.full((4,), 1e-5)),
        )
        self.norm, self.gain = nn.LayerNorm(4), nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        return x + self.gain * self.norm(self.gamma * self.b(self.a(x).relu()))


def test_branches_that_start_at_zero_are_redrawn():
    report = verify(ZeroInit(), spec_of(ZeroInit(), AB_GROUPS, AB_AXES), torch.randn(5, 4))
    assert report.ok
    assert min(report.sensitivity.values()) > 1e-3
    forgotten = {n: a for n, a in AB_AXES.items() if n != "a.bias"}
    assert (
        verify(ZeroInit(), spec_of(ZeroInit(), AB_GROUPS, forgotten), torch.randn(5, 4)).change
        > 1e-3
    )


class Explodes(nn.Module):
    def __init__(self, works: bool) -> None:
        super().__init__()
        self.a, self.b, self.works = nn.Linear(4, 6), nn.Linear(6, 3), works

    def forward(self, x):
        return self.b((20 * self.a(x)).exp().exp() if self.works else (-1 - self.a(x) ** 2).log())


def test_a_network_that_explodes_is_drawn_smaller_and_one_that_cannot_work_is_refused():
    spec = spec_of(Explodes(True), AB_GROUPS, AB_AXES)
    report = verify(Explodes(True), spec, torch.randn(5, 4))
    assert report.ok
    assert not report.unseen
    with pytest.raises(MetanetError, match="Explodes returns no numbers"):
        verify(Explodes(False), spec, torch.randn(5, 4))


def test_statistics_are_near_those_of_the_data_but_not_the_same():
    model = nn.Sequential(nn.Conv1d(4, 300, 1), nn.BatchNorm1d(300), nn.ReLU()).double().eval()
    x, norm = torch.randn(20, 4, 30, dtype=torch.float64), model[1]
    with torch.no_grad(), calibrated(model, torch.Generator().manual_seed(0)):
        model(1000 * x + 500)
        data = model[0](1000 * x + 500).transpose(0, 1).flatten(1)
    off = (norm.running_mean - data.mean(1)) / data.std(1)
    assert 0.2 < off.std() < 1
    ratio = norm.running_var / data.var(1)
    assert ratio.min() > 0.4
    assert ratio.quantile(0.9) < 10
    assert len(ratio.unique()) == 300
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_deep_networks_with_norms_on_the_stream_stay_visible():
    """Large offsets would make the tokens more alike with every layer, until attention no longer
    showed."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.TransformerEncoder(layer, 24, enable_nested_tensor=False)
    groups, axes = [], {}
    for n in range(24):
        groups += [Group(name=f"h{n}", size=12), Group(name=f"q{n}", size=4)]
        axes |= {
            f"layers.{n}.linear1.weight": (f"h{n}", None),
            f"layers.{n}.linear1.bias": (f"h{n}",),
        }
        axes[f"layers.{n}.linear2.weight"] = (None, f"h{n}")
        part = Product((Fixed(2), Leaf(f"q{n}", 4)))  # all heads in one order
        axes[f"layers.{n}.self_attn.in_proj_weight"] = (Concat((part, part, Fixed(8))), None)
        axes[f"layers.{n}.self_attn.in_proj_bias"] = (Concat((part, part, Fixed(8))),)
    x = torch.randn(2, 5, 8)
    report = verify(model, spec_of(model, groups, axes), x)
    assert report.change < 1e-12
    assert all(v > 1e-6 for (name, _), v in report.sensitivity.items() if "linear" in name)
    last = {n: a for n, a in axes.items() if n != "layers.23.self_attn.in_proj_bias"}
    assert verify(model, spec_of(model, groups, last), x, sensitivity=False).change > 1e-4


def test_both_kinds_of_weight_norm_can_be_verified():
    with pytest.warns(FutureWarning, match="deprecated"):
        old = nn.utils.weight_norm(nn.Linear(4, 6))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    for layer, scale, direction in (
        (old, "0.weight_g", "0.weight_v"),
        (new, "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"),
    ):
        model = nn.Sequential(layer, nn.ReLU(), nn.Linear(6, 3))
        groups = [Group(name="a", size=6)]
        axes = {
            scale: ("a", None),
            direction: ("a", None),
            "0.bias": ("a",),
            "2.weight": (None, "a"),
        }
        report = verify(model, spec_of(model, groups, axes), torch.randn(5, 4))
        assert report.ok
        assert not report.unseen
        broken = {n: a for n, a in axes.items() if n != scale}
        assert verify(model, spec_of(model, groups, broken), torch.randn(5, 4)).change > 1e-3
