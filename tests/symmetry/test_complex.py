"""Complex tensors under transforms and factors; what a complex parameter is when traced says
nothing of it."""

import pytest
import torch
from torch import Tensor, nn

import metanet
from metanet.symmetry import Fixed, Group, Leaf, Product, SymmetrySpec, TensorAxes
from symmetry.charges import change, find, law_error
from symmetry.constructs import CONSTRUCTS

A = torch.ops.aten
GENERATOR = torch.Generator().manual_seed(0)
BOTH, SIGNS, SCALES, NONE = {"sign", "scale"}, {"sign"}, {"scale"}, set()


def r(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def c(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=GENERATOR)


# ---------------------------------------------------------------- transforms


def wreath() -> SymmetrySpec:
    groups = (Group(name="heads", size=3), Group(name="dims", size=4, keys=("heads",)))
    axes = (Product((Leaf("heads", 3), Leaf("dims", 4))), Fixed(2))
    return SymmetrySpec(groups, {"w": TensorAxes(shape=(12, 2), dtype="complex64", axes=axes)})


@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_both_parts_move_alike_in_every_dtype(dtype):
    t, w = wreath().sample(torch.Generator().manual_seed(1)), c(12, 2).to(dtype)
    moved = t.apply("w", w)
    assert moved.dtype == dtype
    wide = w.to(torch.complex128)
    for part in ("real", "imag"):
        assert torch.equal(getattr(moved, part).double(), t.apply("w", getattr(wide, part)))
    assert bool((t.inverse()({"w": moved})["w"] == w).all())
    assert bool((t.apply("w", w.conj()) == moved.conj()).all())
    stacked = t.apply("w", torch.stack([w, moved]))
    assert bool((stacked == torch.stack([moved, t.apply("w", moved)])).all())
    assert not bool((moved == w).all())


def test_specs_say_what_is_complex(tmp_path):
    torch.manual_seed(0)
    model, inputs, _ = CONSTRUCTS["complex_gain"].make()
    spec = metanet.trace(model, *inputs).spec
    assert spec.tensors["gain"].shape == (8,)
    assert spec.tensors["gain"].is_complex and not spec.tensors["inp.bias"].is_complex
    spec.save(tmp_path / "spec.json")
    assert SymmetrySpec.load(tmp_path / "spec.json") == spec
    assert "complex64" in spec.explain("gain")


class Uniform(nn.Module):
    """A complex parameter that is the same everywhere when traced, in the middle of what would pass
    it by."""

    def __init__(self, read) -> None:
        super().__init__()
        self.inp, self.out, self.read = nn.Linear(3, 8), nn.Linear(8, 2), read
        self.turn = nn.Parameter(torch.full((8,), 1j))

    def forward(self, x):
        return self.out(self.read(self.inp(x), self.turn))


@pytest.mark.parametrize(
    "read",
    [
        lambda x, w: (x * w).abs(),
        lambda x, w: x + torch.view_as_real(w)[:, 1],
        lambda x, w: x * w.angle(),
        lambda x, w: torch.fft.ifft(
            torch.fft.fft(x[:, :, None].expand(-1, -1, 4)) * w[:, None]
        ).real.sum(-1),
        lambda x, w: torch.complex(x, x.sin()).mul_(w).imag,
        lambda x, w: torch.where(x > 0, x * w, w.conj()).real,
        lambda x, w: x.to(torch.complex64).addcmul(w, w).abs(),
    ],
)
def test_a_complex_parameter_is_no_constant_however_it_is_read(read):
    model, x = Uniform(read), torch.randn(6, 3)
    spec = metanet.trace(model, x).spec
    assert [g.size for g in spec.groups] == [8]
    assert str(spec.tensors["turn"].axes[0]) == str(spec.tensors["inp.bias"].axes[0])
    report = metanet.verify(model, spec, x)
    assert report.ok, str(report)
    model = model.double()
    wide = {
        n: t.to(torch.promote_types(t.dtype, torch.float64)) for n, t in model.state_dict().items()
    }
    state = {n: torch.randn_like(t) for n, t in wide.items()}
    half = spec.sample(torch.Generator().manual_seed(0))(state) | {"turn": state["turn"]}
    with torch.no_grad(), metanet.verification.float64():
        want, got = (torch.func.functional_call(model, s, (x.double(),)) for s in (state, half))
    assert (want - got).abs().max() > 1e-3  # a constant would not have moved


# ---------------------------------------------------------------- factors

LAWS = {
    "complex": (lambda a, b: A.complex(a, b), [r(3, 4), r(3, 4)], BOTH),
    "polar": (lambda a, b: A.polar(a, b), [r(3, 4), r(3, 4)], BOTH),
    "polar, by the angle": (lambda b: A.polar(torch.ones_like(b), b), [r(3, 4)], NONE),
    "abs": (lambda x: x.abs(), [c(3, 4)], BOTH),
    "angle": (lambda x: x.angle(), [c(3, 4)], NONE),
    "sgn": (lambda x: x.sgn(), [c(3, 4)], BOTH),
    "conjugate": (lambda x: torch.view_as_real(x.conj().resolve_conj()), [c(3, 4)], BOTH),
    "imaginary part of the conjugate": (lambda x: x.conj().imag, [c(3, 4)], BOTH),
    "matrices": (lambda x, w: x @ w.mH, [c(3, 4), c(5, 4)], BOTH),
    "product": (lambda x, w: x * w, [c(3, 4), r(4)], BOTH),
    "square root": (lambda x: x.sqrt(), [c(3, 4)], SCALES),
    "tanh": (lambda x: x.tanh(), [c(3, 4)], SIGNS),
    "fourier": (lambda x, w: torch.fft.irfft(torch.fft.rfft(x) * w), [r(3, 4), c(3, 3)], BOTH),
    "bits": (lambda x: x.view(torch.complex128).abs(), [r(3, 4)], NONE),
}


@pytest.mark.parametrize("name", LAWS)
def test_law_is_what_the_operation_does(name):
    function, tensors, kinds = LAWS[name]
    for seed in range(3):
        error, found = law_error(function, tensors, seed)
        assert error < 1e-10
        assert found == kinds


@pytest.mark.parametrize(
    "name",
    [
        "complex_gain",
        "fourier_operator",
        "complex_convolutions",
        "linear_recurrent_unit",
        "complex_attention",
    ],
)
def test_factors_keep_the_function(name):
    torch.manual_seed(0)
    model, inputs, _ = CONSTRUCTS[name].make()
    found = find(model, *inputs)
    assert any(found.also.found.values())
    for leaf, kinds in found.also.found.items():
        for kind in kinds:
            assert change(found, model, leaf, kind, *inputs) < 1e-10
