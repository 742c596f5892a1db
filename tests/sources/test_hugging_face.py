"""hf:ID-OR-FOLDER and folders: networks from a configuration, nothing else of the folder is
read."""

import json

import pytest
import torch

from metanet.errors import MetanetError
from metanet.sources import import_torchvision, load_factory, load_source

import_torchvision()
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers about tiny configurations

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CONFIGS = {
    "LlamaForCausalLM": {
        "model_type": "llama",
        **SMALL,
        **TEXT,
        "num_key_value_heads": 2,
        "dtype": "bfloat16",
    },
    "GPT2LMHeadModel": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, **TEXT},
    "BertForMaskedLM": {"model_type": "bert", **SMALL, **TEXT},
}


@pytest.fixture
def folder(tmp_path):
    """Write a folder with a configuration: ``folder(**fields)`` is its path."""

    def write(**fields):
        (tmp_path / "config.json").write_text(json.dumps(fields))
        return str(tmp_path)

    return write


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("scheme", ["", "hf:"])
def test_a_folder_gives_the_class_that_it_names(name, scheme, folder):
    network = load_source(f"{scheme}{folder(architectures=[name], **CONFIGS[name])}")
    assert type(network).__name__ == name
    assert network.get_input_embeddings().weight.shape == (99, 32)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_weights_are_random_and_a_file_beside_the_configuration_is_not_read(folder, tmp_path):
    ref = folder(architectures=["BertForMaskedLM"], **CONFIGS["BertForMaskedLM"])
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "pytorch_model.bin").write_bytes(b"damaged")
    one, other = (load_source(ref).get_input_embeddings().weight for _ in range(2))
    assert not torch.equal(one, other)


def test_without_memory(folder):
    network = load_source(
        folder(architectures=["LlamaForCausalLM"], **CONFIGS["LlamaForCausalLM"]),
        device="meta",
        hidden_size=8192,
    )
    assert all(p.is_meta for p in network.parameters())


class TestArguments:
    def test_replace_fields_and_what_follows_from_them(self, folder):
        ref = folder(architectures=["LlamaForCausalLM"], **CONFIGS["LlamaForCausalLM"])
        network = load_source(ref, hidden_size=64, num_hidden_layers=3, dtype="bfloat16")
        assert network.model.embed_tokens.weight.shape == (99, 64)
        assert len(network.model.layers) == 3
        assert network.model.layers[0].self_attn.q_proj.weight.shape == (
            64,
            64,
        )  # the size of heads was not given
        assert network.dtype == torch.bfloat16
        assert type(load_source(ref, architectures=["LlamaModel"])).__name__ == "LlamaModel"

    def test_reach_into_nested_configurations(self, folder):
        parts = {
            "text_config": {**SMALL, **TEXT},
            "vision_config": {**SMALL, "image_size": 32, "patch_size": 8},
        }
        network = load_source(
            folder(model_type="clip", **parts), text_config={"num_hidden_layers": 1}
        )
        assert len(network.text_model.encoder.layers) == 1
        assert network.text_model.embeddings.token_embedding.weight.shape == (99, 32)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"hidden_sise": 3}, "BertConfig has no field 'hidden_sise'; did you mean hidden_size"),
            ({"zzzz": 3}, "BertConfig has no field 'zzzz'; it has .*hidden_size"),
            (
                {"hidden_size": "x"},
                r"(?s)can't be configured with arch_args.hidden_size='x': .*expected int, got str",
            ),
            (
                {"architectures": ["BertForNothing"]},
                "is a BertForNothing, which transformers 5.*arch_args.arch",
            ),
            ({"architectures": ["AutoConfig"]}, "is a AutoConfig, which transformers 5"),
        ],
    )
    def test_says_what_is_wrong_with_them(self, arguments, message, folder):
        with pytest.raises(MetanetError, match=message):
            load_source(folder(**CONFIGS["BertForMaskedLM"]), **arguments)


@pytest.mark.parametrize(
    ("model_type", "arguments", "kind"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 4, **TEXT}, "GPT2LMHeadModel"),
        ("bert", {**SMALL, **TEXT}, "BertForMaskedLM"),
        (
            "t5",
            {"d_model": 32, "d_ff": 48, "num_layers": 1, "vocab_size": 99},
            "T5ForConditionalGeneration",
        ),
        ("vit", {**SMALL, "image_size": 32, "patch_size": 8}, "ViTModel"),
    ],
)
def test_a_model_type_is_enough(model_type, arguments, kind):
    assert type(load_source(f"hf:{model_type}", **arguments)).__name__ == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json, which would say what network it is of"),
        ("{", "config.json' is damaged or no JSON"),
        ("[]", r"config.json' is damaged or of another format.*\n.*got \[\]"),
        (
            '{"architecture": "resnet18"}',
            "config.json has no model_type; it is one of timm: arch=timm:resnet18",
        ),
    ],
)
def test_says_what_is_wrong_with_a_folder(text, message, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(MetanetError, match=message):
        load_factory(str(tmp_path))


def test_code_of_a_repository_never_runs(folder, tmp_path):
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('ran')\n")
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    with pytest.raises(
        MetanetError, match=r"has no model type 'own'.*code that comes with a repository never runs"
    ):
        load_source(folder(model_type="own", auto_map=own, architectures=["OwnModel"]))
    network = load_source(
        folder(auto_map=own, architectures=["BertModel"], **CONFIGS["BertForMaskedLM"])
    )
    assert type(network) is transformers.BertModel


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "org/nothing_here",
            r"hf:org/nothing_here: there is no such folder, and no such repository in the cache",
        ),
        ("lama", r"Did you mean the model type llama"),
    ],
)
def test_says_when_there_is_no_such_repository(name, message):
    with pytest.raises(MetanetError, match=message):
        load_factory(f"hf:{name}")


def test_a_repository_in_the_cache_wins_over_a_model_type(monkeypatch):
    fields = CONFIGS["GPT2LMHeadModel"] | {"n_embd": 16}
    asked = []

    def read(name, **options):
        asked.append((name, options))
        return dict(fields), {}

    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", read)
    assert load_source("hf:gpt2", device="meta").transformer.wte.weight.shape == (99, 16)
    assert asked == [("gpt2", {"local_files_only": True})]
