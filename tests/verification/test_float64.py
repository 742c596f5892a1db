"""Half and single precision inside a network become float64."""

import copy

import pytest
import torch
from torch import nn

from metanet.sources import import_torchvision
from metanet.symmetry import Fixed, Group, Leaf, Product
from metanet.verification import float64, verify
from verification.specs import AB_AXES, AB_GROUPS, spec_of


def test_every_narrow_type_becomes_float64():
    x = torch.randn(5, 7, dtype=torch.float64)
    outside = torch.randn(7)  # made before, in float32
    with float64():
        assert torch.equal(x.float().softmax(-1).to(x.dtype), x.softmax(-1))
        assert torch.equal(x.softmax(-1, dtype=torch.float32), x.softmax(-1))
        assert torch.equal(x.half() + x.bfloat16(), 2 * x)
        assert torch.equal(x.sum(-1, dtype=torch.float32), x.sum(-1))
        assert torch.equal(torch.zeros(5, 7, dtype=torch.float32).copy_(x), x)
        assert torch.equal(torch.tensor([0.1]), torch.tensor([0.1], dtype=torch.float64))
        narrow = {"dtype": torch.float32}
        made = [
            torch.zeros(2, **narrow),
            torch.arange(3, dtype=torch.half),
            torch.ones(2),
            x.new_ones(2, **narrow),
        ]
        made += [
            x @ outside,
            outside * 1,
            x.to(outside),
            torch.full((2,), torch.finfo(torch.float32).min, **narrow),
        ]
        assert {t.dtype for t in made} == {torch.float64}
        assert x.to(torch.complex64).dtype == torch.complex128
        assert torch.arange(3).dtype == x.view(torch.int64).dtype == torch.int64
        pairs = torch.randn(5, 8)
        assert torch.equal(
            pairs.double().view(torch.complex64), pairs.view(torch.complex64).to(torch.complex128)
        )
        assert torch.equal(
            torch.complex(x.float(), x).view(torch.float32), torch.stack([x, x], -1).flatten(1)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(x.float() @ x.float().T, x @ x.T)
    assert torch.get_default_dtype() == torch.float32
    assert x.float().dtype == torch.float32


def test_the_default_dtype_comes_back_after_an_error():
    with pytest.raises(RuntimeError, match="shapes"), float64():
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert torch.get_default_dtype() == torch.float32


class Waves(nn.Module):
    """Complex parameters, buffers and constants in single precision, some of them written in
    place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("shifts", torch.randn(1, dtype=torch.complex64), persistent=False)
        self.plain, self.scratch = [torch.ones(1) * 1j], torch.zeros(5, 6, dtype=torch.complex64)
        self.gain = nn.Parameter(torch.full((), 0.5 + 1j))

    def forward(self, x):
        self.scratch[1:] = (
            self.a(x).float().to(torch.cfloat) * self.gain * self.shifts + self.plain[0]
        )[1:]
        return self.b(torch.view_as_real(self.scratch).float().square().sum(-1))


def test_complex_networks_are_verified_to_float64_accuracy():
    model = Waves()
    report = verify(model, spec_of(model, AB_GROUPS, AB_AXES), torch.randn(5, 4))
    assert report.ok
    assert report.change < 1e-14
    assert model.gain.dtype == model.shifts.dtype == torch.complex64


class Upcasts(nn.Module):
    """Computes in float32 on purpose, and holds tensors that no state dict shows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("slopes", torch.rand(1), persistent=False)
        self.plain, self.scratch = [torch.rand(1)], torch.zeros(5, 6)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.a(x).float() * self.slopes + self.plain[0]
        self.scratch[1:] = h[1:]  # through a view
        return self.b(self.scratch.softmax(-1, dtype=torch.float32).to(x.dtype)).float()


def test_networks_that_upcast_are_verified_to_float64_accuracy():
    report = verify(Upcasts(), spec_of(Upcasts(), AB_GROUPS, AB_AXES), torch.randn(5, 4))
    assert report.ok
    assert report.change < 1e-13
    assert not report.unseen


def test_a_llama_is_verified_to_float64_accuracy():
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=7, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    groups, axes = (
        [Group(name="s", size=8)],
        {"model.embed_tokens.weight": (None, "s"), "lm_head.weight": (None, "s")},
    )
    axes["model.norm.weight"] = ("s",)
    for n in range(2):
        groups += [Group(name=f"h{n}", size=7), Group(name=f"v{n}", size=4)]
        layer = f"model.layers.{n}"
        values = Product((Fixed(2), Leaf(f"v{n}", 4)))  # two query heads read one value head
        axes |= {
            f"{layer}.{name}.weight": ("s",)
            for name in ("input_layernorm", "post_attention_layernorm")
        }
        axes |= {f"{layer}.self_attn.{name}_proj.weight": (None, "s") for name in "qk"}
        axes |= {
            f"{layer}.self_attn.v_proj.weight": (f"v{n}", "s"),
            f"{layer}.self_attn.o_proj.weight": ("s", values),
        }
        axes |= {f"{layer}.mlp.{name}_proj.weight": (f"h{n}", "s") for name in ("gate", "up")}
        axes[f"{layer}.mlp.down_proj.weight"] = ("s", f"h{n}")
    spec, ids = spec_of(model, groups, axes), torch.randint(0, 11, (2, 7))
    report = verify(model, spec, ids)
    assert report.ok
    assert report.change < 1e-12
    assert min(report.sensitivity.values()) > 1e-4
    assert model.config.use_cache
    plain = copy.deepcopy(
        model
    ).double()  # the twin: without the mode, norms and rotations round to float32
    want = plain(ids, use_cache=False).logits
    plain.load_state_dict(spec.sample(torch.Generator().manual_seed(0))(plain.state_dict()))
    assert (plain(ids, use_cache=False).logits - want).abs().max() / want.abs().max() > 1e-10
