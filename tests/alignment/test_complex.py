"""Complex tensors in alignment: they move as real ones do, and count by the real parts of inner
products."""

import pytest
import torch
from torch import nn

import metanet
from metanet.alignment import MATCHERS
from metanet.errors import CheckpointError
from metanet.testing import random_values

FOUND_FOR_SURE = ("weight", "activation", "combined", "universe", "merge_many")


class Waves(nn.Module):
    """A gain, a matrix and a buffer, all complex."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(3, 8), nn.Linear(6, 2)
        self.gain, self.mid = nn.Parameter(torch.ones(8, dtype=dtype)), nn.Linear(8, 6, dtype=dtype)
        self.register_buffer("turn", torch.ones(6, dtype=dtype))

    def forward(self, x):
        return self.out((self.mid((self.inp(x) * self.gain).to(self.turn.dtype)) * self.turn).abs())


@pytest.fixture(scope="module")
def planted():
    torch.manual_seed(0)
    net, x = Waves().eval(), torch.randn(16, 3)
    arch = metanet.trace(net, x)
    a = random_values(arch, torch.Generator().manual_seed(0))
    t = arch.spec.sample(torch.Generator().manual_seed(1))
    data = [(x, torch.randn(16, 2))]
    return arch, net, a, t(a), data


def align(planted, method, **options):
    arch, net, a, b, data = planted
    if method in ("universe", "merge_many"):
        return metanet.align([b], to=a, arch=arch, method=method, **options)[0]
    return metanet.align(
        b,
        to=a,
        arch=arch,
        method=method,
        model=net,
        data=data,
        loss=nn.functional.mse_loss,
        **options,
    )


@pytest.mark.parametrize("method", MATCHERS)
def test_law_5_a_planted_relabelling_is_found(planted, method):
    *_, a, b, _ = planted
    quick = {"straight_through": {"epochs": 1}, "sinkhorn": {"steps": 100}}
    found = align(planted, method, **quick.get(method, {}))
    assert found.objective[-1] >= found.objective[0]
    moved = found(b)
    assert all(moved[n].dtype == t.dtype for n, t in a.items())
    if method in FOUND_FOR_SURE:
        assert all(torch.equal(moved[n], t) for n, t in a.items())


def test_both_parts_count():
    """Gains of equal size and equal real part are told apart by their imaginary parts."""
    net, x = Waves().eval(), torch.randn(16, 3)
    arch = metanet.trace(net, x)
    a = {n: torch.ones_like(t) for n, t in net.state_dict().items()}
    a["gain"] = torch.complex(torch.zeros(8), torch.arange(8.0) + 1)
    t = arch.spec.sample(torch.Generator().manual_seed(3))
    with pytest.warns(UserWarning, match="mid"):
        found = metanet.align(t(a), to=a, arch=arch)
    assert torch.equal(found(t(a))["gain"], a["gain"])


def test_the_objective_is_that_of_the_parts(planted):
    arch, _, a, b, _ = planted
    found = metanet.align(b, to=a, arch=arch)
    parts = [torch.view_as_real(t) if t.is_complex() else t for t in a.values()]
    assert found.objective[-1] == pytest.approx(
        sum(float(t.square().sum()) for t in parts), rel=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex128])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_complex_dtype_is_aligned_and_keeps_its_bits(planted, dtype):
    arch, _, a, _, _ = planted
    a = {n: t.to(dtype) if t.is_complex() else t for n, t in a.items()}
    t = arch.spec.sample(torch.Generator().manual_seed(2))
    found = metanet.align(t(a), to=a, arch=arch)
    moved = found(t(a))
    assert all(moved[n].dtype == x.dtype and bool((moved[n] == x).all()) for n, x in a.items())


def test_real_for_complex_is_said_and_nothing_is_called_quantised(planted):
    arch, _, a, b, _ = planted
    for wrong, kind in (
        ({**b, "gain": b["gain"].real}, "gain is torch.float32, expected complex"),
        ({**b, "inp.bias": b["inp.bias"] + 0j}, "inp.bias is torch.complex64, expected real"),
    ):
        with pytest.raises(CheckpointError, match=kind):
            metanet.align(wrong, to=a, arch=arch)
    with pytest.raises(CheckpointError, match="quantised"):
        metanet.align({**b, "gain": torch.ones(8, dtype=torch.int8)}, to=a, arch=arch)


def test_an_alignment_knows_that_complex_tensors_are_lacking(planted, tmp_path):
    arch, _, a, b, _ = planted
    found = metanet.align(b, to=a, arch=arch)
    found.save(tmp_path / "alignment.safetensors")
    loaded = metanet.alignment.Alignment.load(tmp_path / "alignment.safetensors")
    loaded.check(b)
    assert torch.equal(loaded(b)["mid.weight"], a["mid.weight"])
    with pytest.raises(CheckpointError, match="moves gain"):
        loaded.check({n: t for n, t in b.items() if n != "gain"})


def test_the_barrier_to_a_relabelled_copy_vanishes(planted):
    arch, net, a, b, data = planted
    loss = nn.functional.mse_loss
    apart = metanet.barrier(a, b, model=net, data=data, loss=loss, points=5)
    moved = metanet.align(b, to=a, arch=arch)(b)
    together = metanet.barrier(a, moved, model=net, data=data, loss=loss, points=5)
    assert max(together.loss) - min(together.loss) < 1e-5 * max(together.loss)
    assert max(apart.loss) - min(apart.loss) > 0.1 * max(apart.loss)
