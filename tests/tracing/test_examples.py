"""Example inputs are made from a network's own configuration, run, and differ in size from their
check."""

import pytest
import torch
from torch import nn

from metanet.errors import TraceError
from metanet.sources import import_torchvision
from metanet.tracing import Example, example_inputs

import_torchvision()
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
torchvision = pytest.importorskip("torchvision")

TEXT = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SPEECH = {
    **SMALL,
    "conv_dim": [16, 16],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_conv_pos_embeddings": 8,
}
IMAGE = {"image_size": 32, "patch_size": 8, **SMALL}
SERIES = {
    "prediction_length": 4,
    "context_length": 8,
    "lags_sequence": [1, 2],
    "d_model": 16,
    "num_time_features": 2,
}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_queries": 5,
    "use_pretrained_backbone": False,
}
BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
PAIR = {"text_config": {**SMALL, **TEXT}, "vision_config": IMAGE}

# class: (fields of its configuration, the inputs that it is given)
NETWORKS = {
    "LlamaForCausalLM": ({**SMALL, **TEXT, "num_key_value_heads": 2}, ["input_ids"]),
    "MistralForCausalLM": (
        {**SMALL, **TEXT, "num_key_value_heads": 2, "sliding_window": 7},
        ["input_ids"],
    ),
    "MixtralForCausalLM": (
        {**SMALL, **TEXT, "num_key_value_heads": 2, "num_local_experts": 16},
        ["input_ids"],
    ),
    "GPT2LMHeadModel": ({"n_embd": 32, "n_layer": 2, "n_head": 4, **TEXT}, ["input_ids"]),
    "MambaForCausalLM": (
        {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4, **TEXT},
        ["input_ids"],
    ),
    "BertForMaskedLM": ({**SMALL, **TEXT}, ["input_ids"]),
    "RobertaForMaskedLM": (
        {**SMALL, **TEXT, "max_position_embeddings": 16, "pad_token_id": 1},
        ["input_ids"],
    ),
    "LongformerModel": ({**SMALL, **TEXT, "attention_window": [4, 4]}, ["input_ids"]),
    "CanineModel": (SMALL, ["input_ids"]),
    "LayoutLMModel": ({**SMALL, **TEXT}, ["bbox", "input_ids"]),
    "T5ForConditionalGeneration": (
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, **TEXT},
        ["decoder_input_ids", "input_ids"],
    ),
    "BartForConditionalGeneration": ({**BART, **TEXT}, ["decoder_input_ids", "input_ids"]),
    "BartForSequenceClassification": ({**BART, **TEXT}, ["input_ids"]),
    "ViTForImageClassification": (IMAGE, ["pixel_values"]),
    "ViTMAEForPreTraining": (
        {
            **IMAGE,
            "decoder_hidden_size": 16,
            "decoder_num_attention_heads": 4,
            "decoder_num_hidden_layers": 1,
        },
        ["noise", "pixel_values"],
    ),
    "SwinForImageClassification": (
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        ["pixel_values"],
    ),
    "ConvNextForImageClassification": (
        {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2},
        ["pixel_values"],
    ),
    "VideoMAEForVideoClassification": ({**IMAGE, "num_frames": 4}, ["pixel_values"]),
    "DetrForObjectDetection": (DETR, ["pixel_values"]),
    "SegformerForSemanticSegmentation": (
        {
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
        },
        ["pixel_values"],
    ),
    "CLIPModel": ({**PAIR, "projection_dim": 16}, ["input_ids", "pixel_values"]),
    "SiglipModel": (PAIR, ["input_ids", "pixel_values"]),
    "BlipModel": ({**PAIR, "projection_dim": 16}, ["input_ids", "pixel_values"]),
    "LlavaForConditionalGeneration": ({**PAIR, "image_token_index": 98}, ["input_ids"]),
    "Wav2Vec2Model": (SPEECH, ["input_values"]),
    "ASTForAudioClassification": (
        {**SMALL, "max_length": 32, "num_mel_bins": 32},
        ["input_values"],
    ),
    "WhisperForConditionalGeneration": (
        {
            **BART,
            **TEXT,
            "num_mel_bins": 16,
            "max_source_positions": 20,
            "decoder_start_token_id": 3,
        },
        ["decoder_input_ids", "input_features"],
    ),
    "Speech2TextForConditionalGeneration": (
        {**BART, **TEXT, "input_feat_per_channel": 16},
        ["decoder_input_ids", "input_features"],
    ),
    "EncodecModel": (
        {"num_filters": 4, "hidden_size": 8, "codebook_dim": 8, "codebook_size": 16},
        ["input_values"],
    ),
    "TimeSeriesTransformerModel": (
        SERIES,
        [
            "future_time_features",
            "future_values",
            "past_observed_mask",
            "past_time_features",
            "past_values",
        ],
    ),
    "PatchTSTForPrediction": (
        {"d_model": 16, "num_attention_heads": 4, "prediction_length": 4},
        ["past_values"],
    ),
    "DecisionTransformerModel": (
        {"hidden_size": 32, "n_layer": 1, "n_head": 4},
        ["actions", "returns_to_go", "rewards", "states", "timesteps"],
    ),
    "LxmertModel": (
        {**SMALL, **TEXT, "l_layers": 1, "x_layers": 1, "r_layers": 1, "visual_feat_dim": 8},
        ["input_ids", "visual_feats", "visual_pos"],
    ),
    "Qwen3VLVisionModel": (
        {
            **SMALL,
            "depth": 1,
            "num_heads": 4,
            "out_hidden_size": 16,
            "patch_size": 4,
            "deepstack_visual_indexes": [0],
        },
        ["grid_thw", "hidden_states"],
    ),
}
FIXED = {
    "VideoMAEForVideoClassification",
    "ViTForImageClassification",
    "SwinForImageClassification",
}


def build(name, fields):
    kind = getattr(transformers, name)
    return kind._from_config(kind.config_class(**fields), attn_implementation="eager").eval()


def run(model, args, kwargs):
    with torch.no_grad():
        return model(*args, **kwargs)


def shapes(kwargs):
    return {name: tuple(x.shape) for name, x in kwargs.items() if isinstance(x, torch.Tensor)}


@pytest.mark.filterwarnings("ignore")  # of transformers about its own tiny configurations
@pytest.mark.parametrize("name", NETWORKS)
def test_transformers(name):
    fields, expected = NETWORKS[name]
    model = build(name, fields)
    example = example_inputs(model)
    first, second = shapes(example.kwargs), shapes(example.check[1])
    assert sorted(first) == sorted(second) == expected
    if "grid_thw" in first:  # images of all the batch follow each other in one row
        assert (len(example.kwargs["grid_thw"]), len(example.check[1]["grid_thw"])) == (2, 3)
    else:
        assert {(a[0], second[n][0]) for n, a in first.items()} == {(2, 3)}
    for kwargs in (example.kwargs, example.check[1]):
        run(model, example.args, kwargs)
        if "use_cache" in kwargs:
            assert kwargs["use_cache"] is False


@pytest.mark.parametrize(
    "name", ["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "RobertaForMaskedLM"]
)
def test_sentences_have_lengths_of_their_own_and_plain_tokens(name):
    model = build(name, NETWORKS[name][0])
    example = example_inputs(model)
    first, second = example.kwargs["input_ids"], example.check[1]["input_ids"]
    assert 3 <= first.shape[1] < second.shape[1]
    assert min(first.min(), second.min()) > 2, "a special token among them"
    if name == "MistralForCausalLM":
        assert first.shape[1] > model.config.sliding_window
    if name == "MixtralForCausalLM":  # 16 experts, 2 for each token
        assert first.numel() * 2 / 16 >= 4


def test_a_large_window_is_not_exceeded():
    fields = {**NETWORKS["MistralForCausalLM"][0], "sliding_window": 4096}
    assert example_inputs(build("MistralForCausalLM", fields)).kwargs["input_ids"].shape == (2, 11)


def test_clip_reads_the_text_where_it_ends():
    model = build(
        "CLIPModel",
        NETWORKS["CLIPModel"][0] | {"text_config": {**SMALL, **TEXT, "eos_token_id": 5}},
    )
    ids = example_inputs(model).kwargs["input_ids"]
    assert (ids[:, -1] == 5).all() and (ids[:, :-1] != 5).all()


def test_a_network_of_transformers_that_takes_something_else_has_none():
    model = build("Blip2QFormerModel", {**SMALL, "encoder_hidden_size": 8})
    assert example_inputs(model) is None


def test_on_the_meta_device_inputs_have_values():
    with torch.device("meta"):
        model = build("LlamaForCausalLM", NETWORKS["LlamaForCausalLM"][0])
        example = example_inputs(model)
    assert example.kwargs["input_ids"].device.type == "cpu"


@pytest.mark.parametrize(
    "make", [lambda: build("BertForMaskedLM", SMALL), lambda: timm.create_model("test_resnet")]
)
def test_the_same_configuration_gives_the_same_example(make):
    state = torch.get_rng_state()
    one, other = example_inputs(make()), example_inputs(make())
    for a, b in zip(
        [*one.args, *one.kwargs.values()], [*other.args, *other.kwargs.values()], strict=True
    ):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    torch.set_rng_state(state)
    example_inputs(make_nothing_random())
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator moved"


def make_nothing_random():
    with torch.device("meta"):
        return timm.create_model("test_resnet")


@pytest.mark.parametrize(
    ("name", "arguments", "first", "second"),
    [
        ("test_resnet", {}, (2, 3, 128, 128), (3, 3, 160, 160)),
        ("test_convnext", {"in_chans": 1}, (2, 1, 128, 128), (3, 1, 160, 160)),
        ("test_vit", {}, (2, 3, 160, 160), (3, 3, 160, 160)),
        ("test_vit", {"img_size": 32, "in_chans": 2}, (2, 2, 32, 32), (3, 2, 32, 32)),
        ("test_efficientnet", {}, (2, 3, 128, 128), (3, 3, 160, 160)),
        ("test_mambaout", {}, (2, 3, 128, 128), (3, 3, 160, 160)),
        ("mixer_s32_224", {}, (2, 3, 224, 224), (3, 3, 224, 224)),
        ("vgg11", {}, (2, 3, 224, 224), (3, 3, 256, 256)),
        ("tresnet_m", {}, (2, 3, 128, 128), (3, 3, 160, 160)),
        ("halonet26t", {}, (2, 3, 256, 256), (3, 3, 512, 512)),
        ("deepseek_vit_412m", {}, (2, 3, 168, 168), (3, 3, 210, 210)),
    ],
)
def test_timm(name, arguments, first, second):
    with torch.device("meta"):
        model = timm.create_model(name, **arguments).eval()
    example = example_inputs(model)
    ((check,), _) = example.check
    assert (example.args[0].shape, check.shape) == (first, second)
    for x in (example.args[0], check):
        run(model, (x.to("meta"),), {})


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("resnet18", (2, 3, 128, 128), (3, 3, 160, 160)),
        ("squeezenet1_0", (2, 3, 128, 128), (3, 3, 160, 160)),
        ("vgg11", (2, 3, 224, 224), (3, 3, 256, 256)),
        ("inception_v3", (2, 3, 299, 299), (3, 3, 331, 331)),
        ("vit_b_32", (2, 3, 224, 224), (3, 3, 224, 224)),
        ("swin_t", (2, 3, 128, 128), (3, 3, 160, 160)),
        ("maxvit_t", (2, 3, 224, 224), (3, 3, 224, 224)),
    ],
)
def test_torchvision(name, first, second):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None).eval()
    example = example_inputs(model)
    ((check,), _) = example.check
    assert (example.args[0].shape, check.shape) == (first, second)
    for x in (example.args[0], check):
        run(model, (x.to("meta"),), {})


def test_torchvision_networks_that_take_no_plain_images_have_none():
    with torch.device("meta"):
        assert example_inputs(torchvision.models.video.r3d_18()) is None
        assert example_inputs(torchvision.models.optical_flow.raft_small()) is None


class TestOwn:
    x = torch.zeros(2, 3)

    def network(self, **attributes):
        network = nn.Linear(3, 1)
        for name, value in attributes.items():
            setattr(network, name, value)
        return network

    @pytest.mark.parametrize(
        ("given", "example"),
        [
            (x, Example(args=(x,))),
            ((x, 1), Example(args=(x, 1))),
            ({"input": x}, Example(kwargs={"input": x})),
            (lambda: (TestOwn.x,), Example(args=(x,))),
        ],
    )
    def test_in_every_form(self, given, example):
        found = example_inputs(self.network(example_inputs=given))
        assert (found.args, found.kwargs, found.check) == (example.args, example.kwargs, None)

    def test_with_a_check(self):
        other = torch.zeros(3, 3)
        assert example_inputs(self.network(example_inputs=self.x, check_inputs=(other,))).check == (
            (other,),
            {},
        )

    def test_another_form_is_named(self):
        with pytest.raises(
            TraceError, match=r"Linear.example_inputs gave int, expected a tensor, a tuple"
        ):
            example_inputs(self.network(example_inputs=3))

    def test_a_module_that_says_nothing_has_none(self):
        assert example_inputs(self.network()) is None
