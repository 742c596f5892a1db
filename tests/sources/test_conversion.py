"""Names and layouts of files against those of modules: transformers' own saving and loading is the
reference."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from metanet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError
from metanet.evaluation import fit_to
from metanet.sources import import_torchvision, in_memory, on_disk

import_torchvision()
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers about tiny configurations

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
EXPERTS = {"num_key_value_heads": 2, "moe_intermediate_size": 12, "num_experts_per_tok": 2}
NETWORKS = {
    "ViTForImageClassification": {**SMALL, "image_size": 16, "patch_size": 8},
    "MixtralForCausalLM": {**SMALL, **TEXT, "num_key_value_heads": 2, "num_local_experts": 3},
    "Qwen2MoeForCausalLM": {
        **SMALL,
        **TEXT,
        **EXPERTS,
        "num_experts": 11,
        "shared_expert_intermediate_size": 20,
    },
    "BertForMaskedLM": {**SMALL, **TEXT},
    "GPT2LMHeadModel": {"n_embd": 32, "n_layer": 2, "n_head": 4, **TEXT},
    "LlamaForCausalLM": {**SMALL, **TEXT, "num_key_value_heads": 2},
}
CONVERTED = {"ViTForImageClassification", "MixtralForCausalLM", "Qwen2MoeForCausalLM"}
V5 = int(transformers.__version__.partition(".")[0]) >= 5
needs_5 = pytest.mark.skipif(not V5, reason="transformers converts since version 5")


def network(name, **more):
    """A network whose values differ everywhere, norms and biases too."""
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**{**NETWORKS.get(name, {}), **more})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def hold(tensors):
    """A checkpoint in memory that notes what is read."""
    reads = []

    def read(name):
        reads.append(name)
        return tensors[name].clone()

    shapes, dtypes = (
        {n: t.shape for n, t in tensors.items()},
        {n: t.dtype for n, t in tensors.items()},
    )
    return Checkpoint(Path("held"), read, shapes, dtypes), reads


def assert_same(one, other):
    assert set(one) == set(other)
    assert [
        n for n in one if one[n].dtype != other[n].dtype or not torch.equal(one[n], other[n])
    ] == []


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_transformers_saved_comes_back_and_goes_there_again(name, device, tmp_path):
    model = network(name)
    model.save_pretrained(tmp_path)
    stored = load_checkpoint(tmp_path)
    with torch.device(device):
        given = type(model)._from_config(model.config)
    converted = in_memory(stored, given)
    assert (converted is stored) == (not V5 or name not in CONVERTED)
    fitted = fit_to(given, converted)
    assert_same(fitted, model.state_dict())
    back = on_disk(fitted, given, stored)
    assert_same(back, stored)
    assert dict(back.shapes) == dict(stored.shapes)
    assert_same(pickle.loads(pickle.dumps(back)), stored)


@needs_5
@pytest.mark.parametrize("name", sorted(CONVERTED))
def test_from_pretrained_loads_what_was_changed_in_memory(name, tmp_path):
    model = network(name)
    model.save_pretrained(tmp_path / "a")
    stored = load_checkpoint(tmp_path / "a")
    doubled = {n: 2 * t for n, t in in_memory(stored, model).items()}
    model.config.save_pretrained(tmp_path / "b")
    save_checkpoint(tmp_path / "b", on_disk(hold(doubled)[0], model, stored))
    assert_same(type(model).from_pretrained(tmp_path / "b").state_dict(), doubled)


@needs_5
class TestReading:
    """Mixtral: three matrices for each expert in the file, two tensors for all in the module."""

    @pytest.fixture
    def given(self, tmp_path):
        model = network("MixtralForCausalLM")
        model.save_pretrained(tmp_path)
        return model, dict(load_checkpoint(tmp_path))

    def test_nothing_but_what_a_tensor_is_made_of(self, given):
        stored, reads = hold(given[1])
        converted = in_memory(stored, given[0])
        assert reads == []
        assert converted.shapes["model.layers.1.mlp.experts.gate_up_proj"] == (3, 96, 32)
        converted["model.layers.1.mlp.experts.gate_up_proj"]
        start = "model.layers.1.block_sparse_moe.experts"
        assert sorted(reads) == [f"{start}.{k}.{w}.weight" for k in range(3) for w in ("w1", "w3")]

    def test_writing_in_order_makes_every_tensor_once(self, given):
        model, tensors = given
        fitted, reads = hold(dict(fit_to(model, in_memory(hold(tensors)[0], model))))
        back = on_disk(fitted, model, hold(tensors)[0])
        assert reads == []
        assert_same({name: back[name] for name in back}, tensors)
        assert sorted(reads[: len(fitted)]) == sorted(fitted)

    def test_every_reading_has_memory_of_its_own(self, given):
        model, tensors = given
        back = on_disk(in_memory(hold(tensors)[0], model), model, hold(tensors)[0])
        for checkpoint in (back, in_memory(hold(tensors)[0], model)):
            for name in checkpoint:
                first = checkpoint[name]
                assert first.untyped_storage().nbytes() == first.nbytes
                kept = first.clone()
                first.zero_()
                assert torch.equal(checkpoint[name], kept)

    def test_experts_that_do_not_fit_each_other(self, given):
        model, tensors = given
        del tensors["model.layers.0.block_sparse_moe.experts.2.w3.weight"]
        with pytest.raises(
            CheckpointError, match=r"model.layers.0.mlp.experts.gate_up_proj can't be made of .*w1"
        ):
            in_memory(hold(tensors)[0], model)

    def test_a_layout_of_other_experts(self, given):
        model, tensors = given
        other = network("MixtralForCausalLM", num_local_experts=4)
        converted = dict(in_memory(hold(tensors)[0], model))
        converted = {
            n: t if "experts" not in n else torch.cat([t, t[:1]]) for n, t in converted.items()
        }
        with pytest.raises(CheckpointError, match=r"does not fit|can't be written"):
            on_disk(hold(converted)[0], other, hold(tensors)[0])

    def test_half_of_what_belongs_together(self, tmp_path):
        model = network("HrmTextForCausalLM", **SMALL, **TEXT)
        model.save_pretrained(tmp_path)
        stored = load_checkpoint(tmp_path)
        split = [n for n in model.state_dict() if n.endswith("up_proj.weight")]
        converted = {n: t for n, t in in_memory(stored, model).items() if n not in split}
        with pytest.raises(CheckpointError, match=r"has no .*up_proj.weight, which .* is made of"):
            on_disk(hold(converted)[0], model, stored)


@needs_5
def test_joined_tensors_of_unequal_sizes():
    # transformers itself would save three equal parts of them
    text = {
        **SMALL,
        **TEXT,
        "num_key_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    }
    sizes = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 4}
    model = network("OlmoHybridForCausalLM", **text, **sizes, linear_value_head_dim=8)
    tensors = {n: t.clone() for n, t in model.state_dict().items()}
    name = "model.layers.0.linear_attn.conv1d.weight"
    joined = tensors.pop(name)
    parts = dict(zip("qkv", joined.split([8, 8, 32]), strict=True))
    tensors |= {name.replace("conv1d", f"{k}_conv1d"): part.clone() for k, part in parts.items()}
    stored = hold(tensors)[0]
    converted = in_memory(stored, model)
    assert torch.equal(converted[name], joined)
    assert_same(on_disk(fit_to(model, converted), model, stored), tensors)


@needs_5
def test_turned_where_the_shape_says_so():
    text = {**SMALL, **TEXT, **EXPERTS, "num_experts": 3, "head_dim": 8, "num_hidden_layers": 1}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 20,
        "out_hidden_size": 32,
    }
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    model = network("Qwen3VLMoeForConditionalGeneration", text_config=text, vision_config=vision)
    tensors = {n: t.clone() for n, t in model.state_dict().items()}
    name = "model.language_model.layers.0.mlp.experts.down_proj"
    turned = {**tensors, name: tensors[name].transpose(1, 2).contiguous()}
    converted = in_memory(hold(turned)[0], model)
    assert_same(converted, tensors)
    assert_same(on_disk(converted, model, hold(turned)[0]), turned)


def test_names_of_old_files():
    model = network("BertForMaskedLM")
    tensors = {n: t.clone() for n, t in model.state_dict().items()}
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
           for n, t in tensors.items()}  # fmt: skip
    old["bert.embeddings.position_ids"] = torch.arange(512)[None]
    stored = hold(old)[0]
    assert "bert.embeddings.LayerNorm.gamma" in stored
    converted = in_memory(stored, model)
    assert converted.skipped == ("bert.embeddings.position_ids",)
    assert_same(fit_to(model, converted), tensors)
    assert_same(on_disk(converted, model, stored), old)


def test_only_the_part_with_the_base_models_prefix():
    whole = network("BertForMaskedLM")
    part = transformers.BertModel(whole.config, add_pooling_layer=False)
    tensors = {n: t.clone() for n, t in whole.state_dict().items()}
    stored = hold(tensors)[0]
    fitted = fit_to(part, in_memory(stored, part))
    assert_same(fitted, whole.bert.state_dict())
    doubled = hold({n: 2 * t for n, t in fitted.items()})[0]
    expected = {n: 2 * t if n.startswith("bert.") else t for n, t in tensors.items()}
    back = on_disk(doubled, part, stored)
    assert_same(back, expected)
    assert set(back.skipped) == {n for n in tensors if not n.startswith("bert.")}


def test_a_tied_tensor_is_written_under_all_its_stored_names():
    model = network("GPT2LMHeadModel")
    tensors = {n: t.clone() for n, t in model.state_dict().items()}
    head, embedding = "lm_head.weight", "transformer.wte.weight"
    stored = hold(tensors)[0]
    tripled = {n: 3 * t for n, t in tensors.items() if n != head}
    back = on_disk(hold(tripled)[0], model, stored)
    assert torch.equal(back[head], back[embedding])
    assert torch.equal(back[embedding], 3 * tensors[embedding])


def test_what_is_never_saved_is_the_modules_own(tmp_path):
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 58}
    model = network(
        "MarianMTModel", vocab_size=60, d_model=16, max_position_embeddings=12, **sizes, **heads
    )
    model.save_pretrained(tmp_path)
    stored = load_checkpoint(tmp_path)
    name = "model.encoder.embed_positions.weight"
    assert name in model.state_dict()
    assert name not in stored
    fitted = fit_to(model, in_memory(stored, model))
    assert_same(fitted, model.state_dict())
    assert_same(on_disk(fitted, model, stored), stored)


def test_dtypes_are_those_of_the_file_unless_asked_otherwise(tmp_path):
    model = network("ViTForImageClassification")
    model.save_pretrained(tmp_path)
    stored = load_checkpoint(tmp_path)
    narrow = hold({n: t.bfloat16() for n, t in in_memory(stored, model).items()})[0]
    assert set(on_disk(narrow, model, stored).dtypes.values()) == {torch.float32}
    back = on_disk(narrow, model, stored, cast=False)
    assert set(back.dtypes.values()) == {torch.bfloat16}
    assert {t.dtype for t in back.values()} == {torch.bfloat16}


class TestOtherModules:
    def test_stay_as_they_are(self):
        stored = hold({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})[0]
        assert in_memory(stored, nn.Linear(3, 2)) is stored

    def test_are_written_with_the_prefix_of_their_file_and_what_stands_beside_them(self):
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        tensors = {f"net.{n}": t.clone() for n, t in model.state_dict().items()} | {
            "epoch": torch.tensor(3)
        }
        stored = hold(tensors)[0]
        fitted = fit_to(model, in_memory(stored, model))
        doubled = hold({n: 2 * t for n, t in fitted.items()})[0]
        expected = {n: 2 * t if n != "epoch" else t for n, t in tensors.items()}
        assert_same(on_disk(doubled, model, stored), expected)

    def test_of_another_architecture(self):
        stored = hold({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})[0]
        other = hold({"weight": torch.ones(2, 4), "bias": torch.zeros(2)})[0]
        with pytest.raises(CheckpointError, match="does not fit"):
            on_disk(other, nn.Linear(4, 2), stored)
