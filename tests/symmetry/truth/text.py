"""BERT, GPT-2 and its relatives, GPT-NeoX, Falcon, Bloom, T5.

With learned positions nothing tells the dims of queries and keys apart: per head they share one
free order. What else pins or ties is said at each network. Causal masks are the same for every head
and pin none.
"""

from torch import Tensor

from ._sheet import Example, Sheet, Truth, library
from .decoders import example, tokens

_HEADS, _DIMS, _HIDDEN = 3, 4, 14
_STREAM = _HEADS * _DIMS


def _bert() -> Truth:
    """The head's transform is read by the tied word embeddings, so its output is in the order of
    the stream."""
    sheet = Sheet()
    sheet.group("stream", _STREAM)
    for table in ("word", "position", "token_type"):
        sheet.tensor(f"bert.embeddings.{table}_embeddings.weight", "., stream")
    sheet.norm("bert.embeddings.LayerNorm", "stream")
    for layer in range(2):
        name = f"bert.encoder.layer.{layer}"
        h = sheet.group(f"{layer}.heads", _HEADS)
        qk, vo = sheet.group(f"{layer}.qk", _DIMS, h), sheet.group(f"{layer}.vo", _DIMS, h)
        hidden = sheet.group(f"{layer}.hidden", _HIDDEN)
        sheet.linear(f"{name}.attention.self.query", f"{h}*{qk}", "stream")
        sheet.linear(f"{name}.attention.self.key", f"{h}*{qk}", "stream")
        sheet.linear(f"{name}.attention.self.value", f"{h}*{vo}", "stream")
        sheet.linear(f"{name}.attention.output.dense", "stream", f"{h}*{vo}")
        sheet.norm(f"{name}.attention.output.LayerNorm", "stream")
        sheet.linear(f"{name}.intermediate.dense", hidden, "stream")
        sheet.linear(f"{name}.output.dense", "stream", hidden)
        sheet.norm(f"{name}.output.LayerNorm", "stream")
    sheet.linear("cls.predictions.transform.dense", "stream", "stream")
    sheet.norm("cls.predictions.transform.LayerNorm", "stream")
    sheet.linear("cls.predictions.decoder", ".", "stream")
    sheet.tensor("cls.predictions.bias", ".")

    def make() -> Example:
        transformers = library("transformers")
        config = transformers.BertConfig(
            vocab_size=13, hidden_size=_STREAM, num_hidden_layers=2, num_attention_heads=_HEADS,
            intermediate_size=_HIDDEN, max_position_embeddings=16,
        )  # fmt: skip
        return Example(transformers.BertForMaskedLM(config), (tokens(2, 7),), (tokens(3, 9),))

    return sheet.truth(make)


def _gpt2(kind: str) -> Truth:
    """GPT-2 keeps its weights as ``(in, out)``, with queries, keys and values one behind the other.

    GPT-BigCode is the same with ``(out, in)`` and one key and value for all heads: the dims of the
    key then have one order for all heads, and so have the queries' dims; the same goes for the
    value's.
    """
    one_key = kind == "GPTBigCode"
    sheet = Sheet()
    sheet.group("stream", _STREAM)
    sheet.tensor("transformer.wte.weight", "., stream")
    sheet.tensor("transformer.wpe.weight", "., stream")
    sheet.tensor("lm_head.weight", "., stream")
    for layer in range(2):
        name = f"transformer.h.{layer}"
        h = sheet.group(f"{layer}.heads", _HEADS)
        keys = () if one_key else (h,)
        qk, vo = sheet.group(f"{layer}.qk", _DIMS, *keys), sheet.group(f"{layer}.vo", _DIMS, *keys)
        hidden = sheet.group(f"{layer}.hidden", _HIDDEN)
        qkv = f"{h}*{qk} | {qk} | {vo}" if one_key else f"{h}*{qk} | {h}*{qk} | {h}*{vo}"
        sheet.norm(f"{name}.ln_1", "stream")
        sheet.norm(f"{name}.ln_2", "stream")
        for module, inputs, out in (
            ("attn.c_attn", "stream", qkv),
            ("attn.c_proj", f"{h}*{vo}", "stream"),
            ("mlp.c_fc", "stream", hidden),
            ("mlp.c_proj", hidden, "stream"),
        ):
            sheet.tensor(
                f"{name}.{module}.weight", f"{out}, {inputs}" if one_key else f"{inputs}, {out}"
            )
            sheet.tensor(f"{name}.{module}.bias", out)
    sheet.norm("transformer.ln_f", "stream")
    config = {
        "n_embd": _STREAM,
        "n_layer": 2,
        "n_head": _HEADS,
        "n_inner": _HIDDEN,
        "n_positions": 16,
    }
    return sheet.truth(lambda: example(kind, config))


def _gpt_neox() -> Truth:
    """A quarter of a head's dims is rotated and fixed, what passes is free; rows go head by head, q
    | k | v in each."""
    rotated, passed = 4, 12
    sheet, width = Sheet(), _HEADS * (rotated + passed)
    sheet.group("stream", width)
    sheet.tensor("gpt_neox.embed_in.weight", "., stream")
    sheet.tensor("lm_head.weight", "., stream")
    for layer in range(2):
        name = f"gpt_neox.layers.{layer}"
        h = sheet.group(f"{layer}.heads", _HEADS)
        qk, vo = (
            sheet.group(f"{layer}.qk", passed, h),
            sheet.group(f"{layer}.vo", rotated + passed, h),
        )
        hidden = sheet.group(f"{layer}.hidden", _HIDDEN)
        sheet.norm(f"{name}.input_layernorm", "stream")
        sheet.norm(f"{name}.post_attention_layernorm", "stream")
        query = f"{rotated} | {qk}"
        sheet.linear(
            f"{name}.attention.query_key_value", f"{h}*({query} | {query} | {vo})", "stream"
        )
        sheet.linear(f"{name}.attention.dense", "stream", f"{h}*{vo}")
        sheet.linear(f"{name}.mlp.dense_h_to_4h", hidden, "stream")
        sheet.linear(f"{name}.mlp.dense_4h_to_h", "stream", hidden)
    sheet.norm("gpt_neox.final_layer_norm", "stream")
    config = {
        "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": _HEADS,
        "intermediate_size": _HIDDEN,
        "max_position_embeddings": 32, "rotary_pct": 0.25,
    }  # fmt: skip
    return sheet.truth(lambda: example("GPTNeoX", config))


def _falcon(new: bool) -> Truth:
    """Rotated. The first design has one key and one value for all heads, ``q q q | k | v``; the new
    one repeats ``q q k v`` per key-value head. Attention and feed-forward layer read the same
    stream side by side."""
    kv, queries, dims = (2, 3, 4) if new else (1, 3, 4)
    sheet, width = Sheet(), kv * queries * dims
    sheet.group("stream", width)
    sheet.tensor("transformer.word_embeddings.weight", "., stream")
    sheet.tensor("lm_head.weight", "., stream")
    for layer in range(2):
        name = f"transformer.h.{layer}"
        h = sheet.group(f"{layer}.kv", kv)
        q, vo = sheet.group(f"{layer}.queries", queries, h), sheet.group(f"{layer}.vo", dims, h)
        hidden = sheet.group(f"{layer}.hidden", _HIDDEN)
        for norm in ("ln_attn", "ln_mlp") if new else ("input_layernorm",):
            sheet.norm(f"{name}.{norm}", "stream")
        attention = f"{name}.self_attention"
        sheet.linear(
            f"{attention}.query_key_value",
            f"{h}*({q}*{dims} | {dims} | {vo})",
            "stream",
            bias=False,
        )
        sheet.linear(f"{attention}.dense", "stream", f"{h}*{q}*{vo}", bias=False)
        sheet.linear(f"{name}.mlp.dense_h_to_4h", hidden, "stream", bias=False)
        sheet.linear(f"{name}.mlp.dense_4h_to_h", "stream", hidden, bias=False)
    sheet.norm("transformer.ln_f", "stream")
    config = {
        "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": kv * queries,
        "ffn_hidden_size": _HIDDEN,
        "new_decoder_architecture": new, "num_kv_heads": kv,
    }  # fmt: skip
    return sheet.truth(lambda: example("Falcon", config))


def _bloom() -> Truth:
    """ALiBi gives every head a slope of its own: heads are fixed, and only key the dims within
    them."""
    sheet = Sheet()
    sheet.group("stream", _STREAM)
    sheet.tensor("transformer.word_embeddings.weight", "., stream")
    sheet.norm("transformer.word_embeddings_layernorm", "stream")
    sheet.tensor("lm_head.weight", "., stream")
    for layer in range(2):
        name = f"transformer.h.{layer}"
        h = sheet.group(f"{layer}.heads!", _HEADS)
        qk, vo = sheet.group(f"{layer}.qk", _DIMS, h), sheet.group(f"{layer}.vo", _DIMS, h)
        hidden = sheet.group(f"{layer}.hidden", 4 * _STREAM)
        sheet.norm(f"{name}.input_layernorm", "stream")
        sheet.norm(f"{name}.post_attention_layernorm", "stream")
        sheet.linear(
            f"{name}.self_attention.query_key_value", f"{h}*({qk} | {qk} | {vo})", "stream"
        )
        sheet.linear(f"{name}.self_attention.dense", "stream", f"{h}*{vo}")
        sheet.linear(f"{name}.mlp.dense_h_to_4h", hidden, "stream")
        sheet.linear(f"{name}.mlp.dense_4h_to_h", "stream", hidden)
    sheet.norm("transformer.ln_f", "stream")
    return sheet.truth(
        lambda: example("Bloom", {"hidden_size": _STREAM, "n_layer": 2, "n_head": _HEADS})
    )


def _t5(gated: bool, only_logits: bool) -> Truth:
    """Encoder and decoder share the embedding and so one stream, which the encoder's output pins
    where it is returned.

    A stack has one table of relative positions, a column per head, for all its layers: its heads
    move together, while the dims within them have an order per layer. Cross-attention has no table:
    heads per layer.
    """
    sheet = Sheet()
    stream = sheet.group("stream", 10) if only_logits else "."
    for table in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        sheet.tensor(f"{table}.weight", f"., {stream}")
    for stack in ("encoder", "decoder"):
        heads = sheet.group(f"{stack}.heads", _HEADS)
        sheet.tensor(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", f"., {heads}"
        )
        for block in range(2):
            name = f"{stack}.block.{block}.layer"
            attentions = [("0.SelfAttention", heads)]
            if stack == "decoder":
                attentions.append(("1.EncDecAttention", sheet.group(f"{name}.1.heads", _HEADS)))
            for number, (module, h) in enumerate(attentions):
                qk, vo = (
                    sheet.group(f"{name}.{number}.qk", _DIMS, h),
                    sheet.group(f"{name}.{number}.vo", _DIMS, h),
                )
                sheet.linear(f"{name}.{module}.q", f"{h}*{qk}", stream, bias=False)
                sheet.linear(f"{name}.{module}.k", f"{h}*{qk}", stream, bias=False)
                sheet.linear(f"{name}.{module}.v", f"{h}*{vo}", stream, bias=False)
                sheet.linear(f"{name}.{module}.o", stream, f"{h}*{vo}", bias=False)
                sheet.norm(f"{name}.{number}.layer_norm", stream, bias=False)
            last, hidden = f"{name}.{len(attentions)}", sheet.group(f"{name}.hidden", _HIDDEN)
            for module in ("wi_0", "wi_1") if gated else ("wi",):
                sheet.linear(f"{last}.DenseReluDense.{module}", hidden, stream, bias=False)
            sheet.linear(f"{last}.DenseReluDense.wo", stream, hidden, bias=False)
            sheet.norm(f"{last}.layer_norm", stream, bias=False)
        sheet.norm(f"{stack}.final_layer_norm", stream, bias=False)

    def make() -> Example:
        transformers = library("transformers")

        class State(transformers.T5ForConditionalGeneration):
            """With the encoder's last state as an output of its own."""

            def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> dict[str, Tensor]:
                out = super().forward(input_ids=input_ids, decoder_input_ids=decoder_input_ids)
                return {"scores": out.logits, "state": out.encoder_last_hidden_state}

        config = transformers.T5Config(
            vocab_size=13, d_model=10, d_kv=_DIMS, d_ff=_HIDDEN, num_layers=2, num_decoder_layers=2,
            num_heads=_HEADS,
            relative_attention_num_buckets=8, relative_attention_max_distance=16, use_cache=False,
            feed_forward_proj="gated-gelu" if gated else "relu", decoder_start_token_id=0,
        )  # fmt: skip
        model = (transformers.T5ForConditionalGeneration if only_logits else State)(config)
        ours, theirs = (
            {"input_ids": tokens(b, n), "decoder_input_ids": tokens(b, m)} for b, n, m in _LENGTHS
        )
        return Example(model, (), (), ours, theirs)

    return sheet.truth(make)


_LENGTHS = ((2, 7, 5), (3, 9, 6))  # batch, tokens of the encoder, tokens of the decoder
TRUTHS = {
    "bert": _bert(),
    "gpt2": _gpt2("GPT2"),
    "gpt_bigcode": _gpt2("GPTBigCode"),
    "gpt_neox": _gpt_neox(),
    "falcon": _falcon(new=False),
    "falcon_new": _falcon(new=True),
    "bloom": _bloom(),
    "t5": _t5(gated=False, only_logits=True),
    "t5_encoder_state": _t5(gated=True, only_logits=False),
}
