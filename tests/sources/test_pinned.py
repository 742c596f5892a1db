"""Configurations of strangers: no code, no weights and no files from elsewhere, whatever
transformers would do."""

import json

import pytest
import torch

from metanet.errors import MetanetError
from metanet.sources import load_source
from metanet.sources._pinned import offline, pinned

transformers = pytest.importorskip("transformers")
GPT2 = {
    "model_type": "gpt2",
    "n_layer": 1,
    "n_embd": 8,
    "n_head": 2,
    "vocab_size": 9,
    "n_positions": 8,
}
CODE = {"AutoConfig": "configuration_evil.Config", "AutoModel": "modeling_evil.Model"}
SMALL_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8],
    "depths": [1, 1],
}
DETR = {
    "model_type": "detr", "num_queries": 2, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
}  # fmt: skip
TIMM_PART = {"use_timm_backbone": True, "backbone": "resnet18", "use_pretrained_backbone": True}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Writes a configuration; asking the Hub or importing code of the folder fails the test."""
    (tmp_path / "modeling_evil.py").write_text("raise SystemExit('it ran')\n")
    (tmp_path / "configuration_evil.py").write_text("raise SystemExit('it ran')\n")
    import huggingface_hub

    def reach(*args, **kwargs):
        pytest.fail(f"it reached for the Hub: {args}")

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, reach)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", reach)
    monkeypatch.setattr("torch.load", reach)
    # the kernels package counts as installed: what would fetch is told apart from what would fail
    monkeypatch.setattr(
        "transformers.modeling_utils.is_kernels_available", lambda *a, **k: True, raising=False
    )
    for name in ("lazy_import_flash_attention", "load_and_register_attn_kernel"):
        monkeypatch.setattr(f"transformers.modeling_utils.{name}", reach, raising=False)

    def write(**fields):
        (tmp_path / "config.json").write_text(json.dumps(fields))
        return f"hf:{tmp_path}"

    return write


@pytest.mark.parametrize(
    "fields",
    [
        {"attn_implementation": "org/kernel"},
        {"_attn_implementation": "org/kernel@main:fn"},
        {"_attn_implementation_internal": "org/kernel"},
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": {"": "org/kernel"}},
        {"attn_implementation": ["org/kernel"]},
        {"experts_implementation": "org/kernel"},
        {"auto_map": CODE},
        {"auto_map": CODE, "trust_remote_code": True},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"use_pretrained_backbone": True, "pretrained": True, "checkpoint_path": "/etc/hostname"},
    ],
)
def test_what_reaches_out_is_taken_out(fields, folder):
    model = load_source(folder(**GPT2, **fields))
    assert type(model).__module__.startswith("transformers.")
    assert model.config._attn_implementation in ("eager", "sdpa")


def test_nested_parts_are_pinned_too():
    inner = {
        "attn_implementation": "org/kernel",
        "auto_map": CODE,
        "use_pretrained_backbone": True,
        "depth": 2,
    }
    given = {"text_config": inner, "parts": [inner, {"more": inner}], "attn_implementation": "sdpa"}
    kept = {"depth": 2}
    assert pinned(given, "x") == {
        "text_config": kept,
        "parts": [kept, {"more": kept}],
        "attn_implementation": "sdpa",
    }


def test_nested_configurations_bring_no_code(folder):
    clip = {"model_type": "clip", "projection_dim": 8, "text_config": {}, "vision_config": {}}
    for part in ("text_config", "vision_config"):
        clip[part] = {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        clip[part] |= {"attn_implementation": "org/kernel", "auto_map": CODE}
    load_source(folder(**clip))


def test_backbones_have_random_weights(folder):
    pytest.importorskip("timm")
    model = load_source(folder(**DETR, **TIMM_PART))
    assert not getattr(model.config, "use_pretrained_backbone", False)


@pytest.mark.parametrize(
    "fields",
    [
        {"use_timm_backbone": False, "backbone": "org/backbone"},
        {"use_timm_backbone": True, "backbone": "hf-hub:org/backbone"},
        {"use_timm_backbone": True, "backbone": "local-dir:/tmp"},
        {"use_timm_backbone": False, "backbone": "/tmp"},
    ],
)
def test_backbones_of_repositories_and_other_folders_are_refused(fields, folder):
    with pytest.raises(MetanetError, match="from a repository or another folder"):
        load_source(folder(**DETR, **fields))


def test_backbones_that_ask_the_hub_end_in_a_message(folder):
    """Of a plain name transformers asks whether a repository has it, where its arguments are given
    too."""
    fields = {
        "use_timm_backbone": False,
        "backbone": "resnet18",
        "backbone_kwargs": {"out_indices": [1]},
    }
    with pytest.raises(MetanetError, match="transformers would look on the Hub"):
        load_source(folder(**DETR, **fields))


def test_backbones_in_the_file_itself_are_made(folder):
    """The twin of the refusals."""
    part = {
        "use_timm_backbone": False,
        "backbone_config": {**SMALL_RESNET, "out_features": ["stage2"]},
    }
    load_source(folder(**DETR, **part))


@pytest.mark.parametrize(
    "arguments",
    [{"attn_implementation": "org/kernel"}, {"text_config": {"auto_map": CODE}}, {"trust_remote_code": True},
     {"quantization_config": {}}, {"backbone": "org/name"}],
)  # fmt: skip
def test_arguments_are_refused_rather_than_dropped(arguments, folder):
    with pytest.raises(MetanetError, match=r"arch_args|from a repository"):
        load_source(folder(**GPT2), **arguments)


@pytest.mark.parametrize(
    "key",
    ["pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"],
)
def test_timm_loads_nothing(key):
    pytest.importorskip("timm")
    with pytest.raises(MetanetError, match=rf"random weights here: remove arch_args.{key}"):
        load_source("timm:resnet18", **{key: "/etc/hostname"})


def test_the_hub_is_shut_while_a_network_is_made(monkeypatch):
    from huggingface_hub import constants, errors, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with offline():
        assert constants.is_offline_mode()
        with pytest.raises((errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
            hf_hub_download("org/name", "config.json", cache_dir="/nonexistent")
    assert constants.HF_HUB_OFFLINE is False


def test_deep_configurations_end_in_a_message():
    deep: dict = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(MetanetError, match="nested too deep"):
        pinned({"model_type": "gpt2", "a": deep}, "hf:x")
    while deep:  # a dictionary so deep would be freed recursively
        deep = deep.pop("a")


def test_plain_networks_are_as_before(folder):
    """The sensitivity twin: the same weights by the same seed with and without what is taken
    out."""
    torch.manual_seed(0)
    plain = load_source(folder(**GPT2)).state_dict()
    torch.manual_seed(0)
    other = load_source(
        folder(**GPT2, auto_map=CODE, attn_implementation="org/kernel")
    ).state_dict()
    assert all(torch.equal(plain[name], other[name]) for name in plain)
