"""The family of Llama: rotary positions, grouped queries, gated feed-forward layers, mixtures of
experts, latents.

Rotation tells every dim of queries and keys apart, so these dims are fixed and only whole heads
move. Queries that share a key-value head may be exchanged among themselves: ``kv*queries``, queries
keyed by kv. Values are not rotated: their dims move, one order per kv head, which all its queries
read. Tokens are inputs and logits outputs, so the vocabulary is fixed whether the two tables are
tied or not. RMSNorm has one scale per item and stays on its stream.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ._sheet import Example, Sheet, Truth, library

_STREAM, _HIDDEN, _VOCABULARY = 24, 14, 13


def tokens(batch: int, length: int) -> torch.Tensor:
    """Token numbers ``(batch, length)``."""
    return torch.randint(0, _VOCABULARY, (batch, length))


def example(kind: str, config: Mapping[str, Any]) -> Example:
    """A model of transformers with a random sequence of seven tokens, and with one of nine."""
    transformers = library("transformers")
    settings = {
        "vocab_size": _VOCABULARY,
        "use_cache": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{kind}{head}")(
        getattr(transformers, f"{kind}Config")(**settings, **config)
    )
    if (
        "num_experts_per_tok" in config
    ):  # the loop over experts skips those that no token of the example goes to
        model.set_experts_implementation("batched_mm")
    return Example(model, (tokens(2, 7),), (tokens(3, 9),))


def _attention(
    sheet: Sheet, layer: int, kv: int, queries: int, dims: int, biases: str = ""
) -> None:
    """``biases``: which of q, k, v and o have one."""
    name = f"model.layers.{layer}.self_attn"
    heads = sheet.group(f"{layer}.kv", kv)
    q, vo = sheet.group(f"{layer}.queries", queries, heads), sheet.group(f"{layer}.vo", dims, heads)
    sheet.linear(f"{name}.q_proj", f"{heads}*{q}*{dims}", "stream", bias="q" in biases)
    sheet.linear(f"{name}.k_proj", f"{heads}*{dims}", "stream", bias="k" in biases)
    sheet.linear(f"{name}.v_proj", f"{heads}*{vo}", "stream", bias="v" in biases)
    sheet.linear(f"{name}.o_proj", "stream", f"{heads}*{q}*{vo}", bias="o" in biases)


def _gated(sheet: Sheet, name: str, hidden: str) -> None:
    """``down(act(gate(x)) * up(x))``."""
    sheet.linear(f"{name}.gate_proj", hidden, "stream", bias=False)
    sheet.linear(f"{name}.up_proj", hidden, "stream", bias=False)
    sheet.linear(f"{name}.down_proj", "stream", hidden, bias=False)


def _ends(sheet: Sheet, norms: tuple[str, ...]) -> None:
    for layer in range(2):
        for norm in norms:
            sheet.norm(f"model.layers.{layer}.{norm}", "stream", bias=False)
    sheet.norm("model.norm", "stream", bias=False)
    sheet.tensor("model.embed_tokens.weight", "., stream")
    sheet.tensor("lm_head.weight", "., stream")


_NORMS = ("input_layernorm", "post_attention_layernorm")


def _dense(
    kind: str,
    kv: int,
    queries: int,
    dims: int,
    biases: str = "",
    norms: tuple[str, ...] = _NORMS,
    **config: Any,
) -> Truth:
    sheet = Sheet()
    sheet.group("stream", _STREAM)
    for layer in range(2):
        _attention(sheet, layer, kv, queries, dims, biases)
        if kind == "Qwen3":  # normed before they are rotated: one scale per dim, all fixed
            for norm in ("q_norm", "k_norm"):
                sheet.norm(f"model.layers.{layer}.self_attn.{norm}", ".", bias=False)
        _gated(sheet, f"model.layers.{layer}.mlp", sheet.group(f"{layer}.hidden", _HIDDEN))
    _ends(sheet, norms)
    settings = {
        "hidden_size": _STREAM, "intermediate_size": _HIDDEN, "num_hidden_layers": 2, "head_dim": dims,
        "num_attention_heads": kv * queries, "num_key_value_heads": kv, **config,
    }  # fmt: skip
    return sheet.truth(lambda: example(kind, settings))


def _mixtral() -> Truth:
    """Experts may be exchanged with their rows of the router; the hidden units of every expert have
    an order of their own. Gate and up projection stand one behind the other in one tensor
    ``(experts, 2 hidden, stream)``."""
    sheet, dims = Sheet(), 4
    sheet.group("stream", _STREAM)
    for layer in range(2):
        _attention(sheet, layer, 2, 3, dims)
        name, experts = f"model.layers.{layer}.mlp", sheet.group(f"{layer}.experts", 5)
        hidden = sheet.group(f"{layer}.hidden", 7, experts)
        sheet.tensor(f"{name}.gate.weight", f"{experts}, stream")
        sheet.tensor(f"{name}.experts.gate_up_proj", f"{experts}, {hidden} | {hidden}, stream")
        sheet.tensor(f"{name}.experts.down_proj", f"{experts}, stream, {hidden}")
    _ends(sheet, _NORMS)
    settings = {
        "hidden_size": _STREAM, "intermediate_size": 7, "num_hidden_layers": 2, "head_dim": dims,
        "num_attention_heads": 6, "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2,
        "sliding_window": None,
    }  # fmt: skip
    return sheet.truth(lambda: example("Mixtral", settings))


def _deepseek_v3(groups: int = 3, members: int = 4) -> Truth:
    """Latent attention; a dense first layer; then routed experts in groups, and shared ones.

    Queries, and keys with values, come out of two latents, each a group with an RMSNorm on it. A
    head's query is ``nope | rope``: the first part meets the key dims that come from the latent and
    is free, the second is rotated and fixed; the rotated key is one for all heads and comes
    straight from the stream, behind the latent. The router ranks groups by the sum of their two
    best experts and then experts within the best groups: groups may be exchanged, and experts
    within a group, never across. The shared experts are one gated layer.
    """
    sheet = Sheet()
    sheet.group("stream", _STREAM)
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn"
        q, kv = sheet.group(f"{layer}.q_latent", 11), sheet.group(f"{layer}.kv_latent", 9)
        h = sheet.group(f"{layer}.heads", 2)
        nope, v = sheet.group(f"{layer}.nope", 6, h), sheet.group(f"{layer}.v", 5, h)
        sheet.linear(f"{name}.q_a_proj", q, "stream", bias=False)
        sheet.norm(f"{name}.q_a_layernorm", q, bias=False)
        sheet.linear(f"{name}.q_b_proj", f"{h}*({nope} | 4)", q, bias=False)
        sheet.linear(f"{name}.kv_a_proj_with_mqa", f"{kv} | 4", "stream", bias=False)
        sheet.norm(f"{name}.kv_a_layernorm", kv, bias=False)
        sheet.linear(f"{name}.kv_b_proj", f"{h}*({nope} | {v})", kv, bias=False)
        sheet.linear(f"{name}.o_proj", "stream", f"{h}*{v}", bias=False)
    _gated(sheet, "model.layers.0.mlp", sheet.group("0.hidden", 28))
    name = "model.layers.1.mlp"
    g = sheet.group("1.groups", groups)
    m = sheet.group("1.members", members, g)
    hidden = sheet.group("1.hidden", 10, g, m)
    sheet.tensor(f"{name}.gate.weight", f"{g}*{m}, stream")
    sheet.tensor(f"{name}.gate.e_score_correction_bias", f"{g}*{m}")
    sheet.tensor(f"{name}.experts.gate_up_proj", f"{g}*{m}, {hidden} | {hidden}, stream")
    sheet.tensor(f"{name}.experts.down_proj", f"{g}*{m}, stream, {hidden}")
    _gated(sheet, f"{name}.shared_experts", sheet.group("1.shared", 20))
    _ends(sheet, _NORMS)
    settings = {
        "hidden_size": _STREAM, "intermediate_size": 28, "moe_intermediate_size": 10, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "n_shared_experts": 2,
        "n_routed_experts": groups * members,
        "q_lora_rank": 11, "kv_lora_rank": 9, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 5,
        "n_group": groups, "topk_group": max(1, groups - 1), "num_experts_per_tok": 3,
        "first_k_dense_replace": 1,
    }  # fmt: skip
    return sheet.truth(lambda: example("DeepseekV3", settings))


_FOUR_NORMS = (*_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
TRUTHS = {
    "llama": _dense("Llama", kv=2, queries=2, dims=6),
    "llama_all_heads": _dense("Llama", kv=3, queries=1, dims=6),
    "llama_one_key": _dense("Llama", kv=1, queries=3, dims=6, tie_word_embeddings=True),
    "llama_biases": _dense("Llama", kv=2, queries=3, dims=6, biases="qkvo", attention_bias=True),
    "qwen2": _dense("Qwen2", kv=2, queries=3, dims=4, biases="qkv"),
    "qwen3": _dense("Qwen3", kv=2, queries=3, dims=4),
    "gemma": _dense("Gemma", kv=3, queries=2, dims=4),
    "gemma2": _dense("Gemma2", kv=2, queries=3, dims=4, norms=_FOUR_NORMS, sliding_window=4),
    "mixtral": _mixtral(),
    "deepseek_v3": _deepseek_v3(),
    "deepseek_v3_one_group": _deepseek_v3(groups=1, members=8),
}
