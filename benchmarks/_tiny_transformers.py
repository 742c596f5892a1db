"""Every family of transformers as a network of some ten thousand parameters with random weights.

A default configuration of the family is shrunk by the names of its fields, nested configurations
too; what a family needs besides stands in ``EXCEPTIONS``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

# parameters, a ResNet-50 as backbone fits; more means that SIZES lacks the name of some size
LIMIT = 40_000_000

SIZES = {
    # widths
    **dict.fromkeys(["hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "embedding_size"],
        64),
    **dict.fromkeys(["hidden_dim", "word_embed_proj_dim", "projection_dim", "encoder_hidden_size",
            "d_embed"], 64),
    **dict.fromkeys(["decoder_hidden_size", "out_hidden_size", "text_hidden_size",
            "projector_hidden_size"], 64),
    **dict.fromkeys(["pooler_output_size", "output_hidden_size", "embedding_dim", "lru_width"], 64),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim",
            "n_inner"], 80),
    **dict.fromkeys(["mlp_dim", "dim_ff", "encoder_intermediate_size", "decoder_intermediate_size"], 80),
    **dict.fromkeys(["moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"], 24),
    "shared_expert_intermediate_size": 28, "bottleneck_size": 16, "classifier_proj_size": 24,
    "hidden_size_per_layer_input": 8, "laurel_rank": 8,
    # heads
    **dict.fromkeys(["num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"], 4),
    **dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads", "num_encoder_attention_heads"], 4),
    **dict.fromkeys(["num_decoder_attention_heads", "encoder_num_attention_heads", "encoder_num_heads"], 4),
    **dict.fromkeys(["decoder_num_attention_heads", "decoder_num_heads", "linear_num_value_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "linear_num_key_heads", "index_n_heads"], 2),
    **dict.fromkeys(["head_dim", "d_kv", "attention_head_size", "dim_head", "d_head", "kv_channels"], 16),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim", "global_head_dim", "v_head_dim"], 16),
    "q_lora_rank": 20, "kv_lora_rank": 28, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "qk_head_dim": 20,
    "rotary_dim": 8, "index_head_dim": 16, "index_topk": 4,
    # state-space models
    **dict.fromkeys(["mamba_d_state", "state_size", "mamba_n_heads"], 8), "mamba_d_head": 16,
    "mamba_d_ssm": 128, "mamba_chunk_size": 8, "chunk_size": 8,
    # depths
    **dict.fromkeys(["num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth", "encoder_layers"], 2),
    **dict.fromkeys(["decoder_layers", "num_encoder_layers", "num_decoder_layers",
            "encoder_num_hidden_layers"], 2),
    **dict.fromkeys(["decoder_num_hidden_layers", "num_encoder_hidden_layers",
            "num_decoder_hidden_layers"], 2),
    **dict.fromkeys(["first_k_dense_replace", "num_dense_layers"], 1), "num_nextn_predict_layers": 0,
    "num_kv_shared_layers": 0,
    # experts
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k"], 2),
    **dict.fromkeys(["n_shared_experts", "num_shared_experts", "topk_group"], 1),
    **dict.fromkeys(["n_group", "num_expert_group"], 2),
    # tokens and positions
    **dict.fromkeys(["vocab_size", "text_vocab_size", "encoder_vocab_size", "decoder_vocab_size"], 96),
    "vocab_size_per_layer_input": 96, "sliding_window": 16,
    **dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx", "max_2d_position_embeddings"], 96),
    **dict.fromkeys(["max_source_positions", "max_target_positions"], 96),
    # images, sound, codes
    "image_size": 32, "patch_size": 8, "num_position_embeddings": 16, "num_patches": 16, "num_frames": 4,
    "tubelet_size": 2, "num_queries": 6, "num_conv_pos_embeddings": 5, "num_conv_pos_embedding_groups": 4,
    "codebook_size": 32, "upsample_groups": 64, "window_size": 4, "output_channels": 64,
    "fpn_hidden_size": 64,
}  # fmt: skip
"""Fields that hold one number, at most this; the pairs that must divide each other do."""


def _steps(values: Any) -> list[int]:
    return [16 * (i + 1) for i in range(len(values))]


LISTS: dict[str, Callable[[Any], list[int]]] = {
    "depths": lambda v: (
        [2] + [1] * (len(v) - 1)
    ),  # two where windows are shifted in every other block
    "num_heads": lambda v: [2] * len(v),
    "num_attention_heads": lambda v: [2] * len(v),
    "hidden_sizes": _steps,
    "encoder_hidden_sizes": _steps,
    "embed_dim": _steps,
    "conv_dim": lambda v: [24] * len(v),
    "image_size": lambda v: [32] * len(v),
    "patch_size": lambda v: [8] * len(v),
}
"""Fields that hold a list of numbers."""

WHERE_NONE = {"head_dim": 16, "num_key_value_heads": 2, "vocab_size": 96}
"""Fields that must be given where the default is none at all; modelling code calculates with
them."""

_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
_HALF_MROPE = {**_MROPE, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "autoformer": {"prediction_length": 4},
    "bit": {"num_groups": 4},
    "deepseek_v2": {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 2},
    "depth_anything": {"backbone_config.num_hidden_layers": 4, "backbone_config.out_indices": [1, 2, 3, 4],
                       "reassemble_hidden_size": 64},
    "donut-swin": {"image_size": 128},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 2, "topk_group": 1,
        "num_experts_per_tok": 2},
    "dpt": {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [16, 24, 32, 40]},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "encodec": {"codebook_dim": 64},
    "esm": {"pad_token_id": 1, "mask_token_id": 32},
    "esmc": {"num_key_value_heads": 4},
    "glm46v": {"text_config.rope_parameters": _MROPE},
    "glm4v": {"text_config.rope_parameters": _MROPE},
    "glm4v_moe": {"text_config.rope_parameters": _HALF_MROPE},
    "glm5_next": {"text_config.index_topk": 16},
    "glm_image": {"text_config.rope_parameters": _MROPE},
    "glm_ocr": {"text_config.rope_parameters": _MROPE},
    "glmga": {"text_config.rope_parameters": _MROPE},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "grounding-dino": {"backbone_config.image_size": 128},
    "hgnet_v2": {"hidden_sizes": [256, 512, 1024, 2048]},
    "informer": {"prediction_length": 4},
    "layoutlmv3": {"coordinate_size": 12, "shape_size": 8},
    "levit": {"image_size": 64, "patch_size": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 20},
    "mamba2": {"num_heads": 8, "n_groups": 2},
    "maskformer-swin": {"image_size": 128},
    "mm-grounding-dino": {"backbone_config.image_size": 128},
    "paddleocr_vl": {"text_config.rope_parameters": _MROPE},
    "perceiver": {"num_latents": 10, "d_latents": 48, "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
                  "num_cross_attention_heads": 4},
    "qwen2_5_vl": {"text_config.rope_parameters": _MROPE},
    "qwen2_vl": {"text_config.rope_parameters": _MROPE},
    "reformer": {"axial_pos_embds_dim": (24, 40), "axial_pos_shape": (8, 12)},
    "swin": {"image_size": 128},
    "swin2sr": {"image_size": 128},
    "swinv2": {"image_size": 128},
    "textnet": {"hidden_sizes": [64, 64, 128, 256, 512]},
    "time_series_transformer": {"prediction_length": 4},
    "vjepa2": {"crop_size": 32, "frames_per_clip": 4},
    "voxtral": {"audio_config.intermediate_size": 256},
    "xmod": {"default_language": "en_XX"},
    "unlimited_ocr": {"text_config.num_key_value_heads": 4},
}  # fmt: skip
"""By model type: fields, dotted ones in nested configurations, that are given whatever ``SIZES``
says."""

TYPES = {
    "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""Families whose first class takes the configuration of a part, or whose own model needs inputs
that a configuration does not tell: the part that is taken instead."""

HEADS = [
    "MASKED_LM", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_CLASSIFICATION", "MULTIMODAL_LM",
    "IMAGE_TEXT_TO_TEXT", "SPEECH_SEQ_2_SEQ", "CTC", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION",
    "OBJECT_DETECTION", "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "DEPTH_ESTIMATION",
    "PRETRAINING", "TIME_SERIES_PREDICTION", "TEXT_TO_SPECTROGRAM", "TEXT_TO_WAVEFORM", "IMAGE_TO_IMAGE",
    "KEYPOINT_DETECTION", "ZERO_SHOT_OBJECT_DETECTION", "TEXT_ENCODING", "BACKBONE", "MASK_GENERATION",
]  # fmt: skip
"""The first of these tasks that a family has a network for is taken, else the network without a
head."""

_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def families() -> dict[str, str]:
    """Family, which is the folder of ``transformers.models``, to the model type that stands for
    it."""
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,
        model_type_to_module_name,
    )

    found: dict[str, list[str]] = {}
    for model_type in CONFIG_MAPPING_NAMES:
        if class_name(model_type):
            found.setdefault(model_type_to_module_name(model_type), []).append(model_type)
    chosen = {}
    for family, types in sorted(found.items()):
        named = [t for t in types if t.replace("-", "_").replace(".", "_") == family]
        chosen[family] = TYPES.get(family) or (named or types)[0]
    return chosen


def class_name(model_type: str) -> str:
    """The class that is built for a model type; empty where transformers has none."""
    from transformers.models.auto import modeling_auto

    for mapping in [*(f"MODEL_FOR_{head}_MAPPING_NAMES" for head in HEADS), "MODEL_MAPPING_NAMES"]:
        found = getattr(modeling_auto, mapping).get(model_type)
        if found:
            return found if isinstance(found, str) else found[0]
    return ""


def build(model_type: str) -> nn.Module:
    """The family's network, small and with random weights, eager attention.

    Raises:
        ValueError: still more than ``LIMIT`` parameters: the message names the largest.
        Exception: whatever transformers raises for a configuration that does not fit together.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    kind = getattr(transformers, class_name(model_type))
    config = tiny_config(model_type)
    with torch.device("meta"):
        sizes = {n: p.numel() for n, p in kind._from_config(config).named_parameters()}
    if sum(sizes.values()) > LIMIT:
        largest = max(sizes, key=sizes.__getitem__)
        raise ValueError(
            f"{sum(sizes.values()):,} parameters, {sizes[largest]:,} of them in {largest}"
        )
    return kind._from_config(config, attn_implementation="eager").eval()


def tiny_config(model_type: str) -> Any:
    """The default configuration of a model type with small numbers everywhere."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    config = kind()
    fields = shrink(config, config, {})
    for path, value in EXCEPTIONS.get(model_type, {}).items():
        *parents, last = path.split(".")
        inner = fields
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return kind(**fields)


def shrink(config: Any, default: Any, ids: dict[str, int]) -> dict[str, Any]:
    """The fields in which a small configuration differs from its class's default one, nested ones
    as dicts.

    Args:
        config: as its owner made it.
        default: a fresh one of the same class.
        ids: numbers of special tokens given so far, by field name; filled.
    """
    from transformers import PreTrainedConfig

    given = {
        n: v
        for n, v in vars(config).items()
        if not n.startswith("_") and n not in ("id2label", "label2id")
    }
    depth = (
        next((given[n] for n in _DEPTHS if isinstance(given.get(n), int)), 0)
        if "depths" not in given
        else 0
    )
    layers = _layers(given, depth)
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, PreTrainedConfig):
            fields[name] = {**shrink(value, type(value)(), ids), "model_type": value.model_type}
            continue
        if depth and name in _DEPTHS and value == depth:
            new = len(layers)
        elif isinstance(value, (list, tuple)) and depth > 3 and len(value) == depth:
            new = type(value)(value[n] for n in layers)
        else:
            new = _small(name, value, ids)
        if new != vars(default).get(name):
            fields[name] = new
    if given.get(
        "qk_nope_head_dim"
    ):  # latent attention expands to as many heads of keys as of queries
        fields["num_key_value_heads"] = fields["num_attention_heads"]
        fields["head_dim"] = SIZES["qk_rope_head_dim"]
    return fields


def _layers(given: Mapping[str, Any], depth: int) -> list[int]:
    """Which layers stay: the first of every kind, at least two."""
    if depth < 2:
        return list(range(depth))
    listed = [v for v in given.values() if isinstance(v, (list, tuple)) and len(v) == depth]
    kinds = (
        list(zip(*(v for v in listed if all(isinstance(x, str) for x in v)), strict=True))
        or [()] * depth
    )
    kept = {kinds.index(kind) for kind in kinds}
    return sorted(kept if len(kept) > 1 else {0, 1})


def _small(name: str, value: Any, ids: dict[str, int]) -> Any:
    """A field's value in a small network."""
    if isinstance(value, bool):
        return value
    if value is None:
        return WHERE_NONE.get(name)
    if isinstance(value, int):
        if name.endswith(("_token_id", "_token_index")):
            return ids.setdefault(name, 80 + len(ids) % 16) if value >= 80 else value
        return min(value, SIZES.get(name, value))
    if (
        isinstance(value, (list, tuple))
        and name in LISTS
        and value
        and all(isinstance(v, int) for v in value)
    ):
        return type(value)(LISTS[name](value))
    if isinstance(value, dict) and "mrope_section" in value:
        pairs = int(SIZES["head_dim"] * value.get("partial_rotary_factor", 1.0)) // 2
        return {**value, "mrope_section": [pairs - 2 * (pairs // 4), pairs // 4, pairs // 4]}
    return value
