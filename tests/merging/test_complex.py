"""Complex tensors in merges: methods get them as pairs of real numbers, and say so where they have
no meaning."""

import pytest
import torch
from torch import nn

import metanet
from metanet.errors import CheckpointError
from metanet.merging import METHODS
from metanet.testing import random_values


class Waves(nn.Module):
    """Complex layers between real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(3, 8), nn.Linear(5, 2)
        self.gain, self.mid = (
            nn.Parameter(torch.ones(8, dtype=torch.cfloat)),
            nn.Linear(8, 6, dtype=torch.cfloat),
        )
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        return self.out(self.last(self.mid(self.inp(x) * self.gain).abs()).relu())


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    net, x = Waves().eval(), torch.randn(16, 3)
    arch = metanet.trace(net, x)
    states = [random_values(arch, torch.Generator().manual_seed(n)) for n in range(3)]
    return arch, net, states, [(x, torch.randint(0, 2, (16,)))]


def given(setting, name):
    """As many models as a method takes, and a base unless it wants none."""
    arch, net, (a, b, base), data = setting
    method = METHODS[name]
    models = [a, b][: 1 if name == "passthrough" else method.models[1]]
    base = None if method.base == "none" else base
    return models, {"base": base, "arch": arch, "model": net, "data": data}


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("zipit", "ifm")])
def test_every_method_treats_complex_tensors_as_pairs_of_real_ones(setting, name):
    """The twin is a merge of the pairs themselves, which knows of no complex number."""
    models, options = given(setting, name)
    merged = metanet.merge(models, name, **options)
    assert {n: t.dtype for n, t in merged.items()} == {n: t.dtype for n, t in models[0].items()}
    assert all(
        bool(torch.isfinite(torch.view_as_real(t) if t.is_complex() else t).all())
        for t in merged.values()
    )
    if METHODS[name].needs or METHODS[name].prepare:
        return  # which look at the whole network

    def pairs(state):
        return {n: torch.view_as_real(t) if t.is_complex() else t for n, t in state.items()}

    base = None if options["base"] is None else pairs(options["base"])
    want = metanet.merge([pairs(m) for m in models], name, base=base)
    assert all(torch.equal(pairs(merged)[n], t) for n, t in want.items())


@pytest.mark.parametrize("name", ["linear", "slerp", "zipit"])
def test_law_5_merging_with_a_relabelling_of_itself_returns_the_model(setting, name):
    arch, net, (a, *_), data = setting
    b = arch.spec.sample(torch.Generator().manual_seed(1))(a)
    align = None if name == "zipit" else "weight"
    merged = metanet.merge([a, b], name, align=align, arch=arch, model=net, data=data)
    for n, t in a.items():
        torch.testing.assert_close(merged[n], t, rtol=1e-5, atol=1e-5)


def test_features_that_are_complex_are_only_relabelled_and_said_to_be_so(setting):
    arch, net, (a, b, _), data = setting
    merged = metanet.merge([a, b], "zipit", arch=arch, model=net, data=data)
    kept = {k: v for k, v in merged.report.items() if k.startswith("permuted only")}
    assert any("complex" in str(why) for why in kept.values()), merged.report
    assert any(k.startswith("features of last") for k in merged.report), merged.report
    folded = metanet.merge([a], "ifm", arch=arch, share=0.5, threshold=1.0)
    assert folded["gain"].shape == a["gain"].shape
    assert folded["last.weight"].shape[0] < 5


def test_numbers_conjugated_on_reading_are_merged_as_they_show(setting):
    arch, net, (a, b, base), data = setting
    lazy = [{n: t.conj() if t.is_complex() else t for n, t in s.items()} for s in (a, b)]
    merged = metanet.merge(lazy, arch=arch)
    torch.testing.assert_close(merged["gain"], ((a["gain"] + b["gain"]) / 2).conj().resolve_conj())
    metanet.merge(lazy, "bcwi", base=base, arch=arch, model=net, data=data)["gain"]


def test_real_for_complex_is_refused(setting):
    arch, net, (a, b, _), _ = setting
    with pytest.raises(CheckpointError, match="gain"):
        metanet.merge([a, {**b, "gain": b["gain"].real}], arch=arch, model=net)
    with pytest.raises(CheckpointError, match="gain"):
        metanet.merge([a, {**b, "gain": b["gain"].real}])


def test_a_merged_checkpoint_is_written_and_read(setting, tmp_path):
    arch, _, (a, b, _), _ = setting
    merged = metanet.merge([a, b], arch=arch)
    metanet.save_checkpoint(tmp_path / "merged.safetensors", merged)
    back = metanet.load_checkpoint(tmp_path / "merged.safetensors")
    assert all(torch.equal(back[n], t) for n, t in merged.items())
