"""Every family of transformers as a network of some ten thousand parameters with random weights.

A default configuration of the family is shrunk by the names of its fields, nested configurations too; what a family
needs besides stands in ``EXCEPTIONS``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

LIMIT = 20_000_000  # parameters; more means that some size has a name which SIZES does not know

SIZES = {
    # widths
    **dict.fromkeys(["hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "embedding_size"], 64),
    **dict.fromkeys(["hidden_dim", "word_embed_proj_dim", "projection_dim", "encoder_hidden_size", "d_embed"], 64),
    **dict.fromkeys(["decoder_hidden_size", "out_hidden_size", "text_hidden_size", "projector_hidden_size"], 64),
    **dict.fromkeys(["pooler_output_size", "output_hidden_size", "embedding_dim", "lru_width"], 64),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"], 80),
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
    **dict.fromkeys(["mamba_d_state", "state_size", "mamba_n_heads"], 8), "mamba_d_head": 16, "mamba_d_ssm": 128,
    "mamba_chunk_size": 8, "chunk_size": 8,
    # depths
    **dict.fromkeys(["num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth", "encoder_layers"], 2),
    **dict.fromkeys(["decoder_layers", "num_encoder_layers", "num_decoder_layers", "encoder_num_hidden_layers"], 2),
    **dict.fromkeys(["decoder_num_hidden_layers", "num_encoder_hidden_layers", "num_decoder_hidden_layers"], 2),
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
    "codebook_size": 32, "codebook_dim": 8,
}  # fmt: skip
"""Fields that hold one number, at most this; the pairs that must divide each other do."""


def _steps(values: Any) -> list[int]:
    return [16 * (i + 1) for i in range(len(values))]


LISTS: dict[str, Callable[[Any], list[int]]] = {
    "depths": lambda v: [2] + [1] * (len(v) - 1),  # two where windows are shifted in every other block
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
"""Fields that must be given where the default is none at all; modelling code calculates with them."""
