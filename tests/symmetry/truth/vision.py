"""Vision transformers: of timm, of timm with normed queries and keys, and of transformers.

One residual stream through patches, class token and positions. The heads of a block may be
exchanged; within a head, queries and keys share their dims (the dot product sums over them), values
have dims of their own that the output projection reads. So dims are keyed by heads. Places of
patches and tokens are fixed.
"""

import torch

from ._sheet import Example, Sheet, Truth, library


def _tokens(sheet: Sheet, width: int) -> None:
    sheet.group("stream", width)
    sheet.tensor("cls_token", "., ., stream")
    sheet.tensor("pos_embed", "., ., stream")
    sheet.linear("patch_embed.proj", "stream", ".", kernel=2)


def _blocks(
    sheet: Sheet, depth: int, heads: int, dims: int, hidden: int, normed: bool = False
) -> None:
    """Timm's blocks, with one matrix for queries, keys and values."""
    for block in range(depth):
        name = f"blocks.{block}"
        h = sheet.group(f"{name}.heads", heads)
        # one norm for all heads has one scale per dim: then no head can have its own order of dims
        qk = sheet.group(f"{name}.qk", dims, *(() if normed else (h,)))
        vo, hid = sheet.group(f"{name}.vo", dims, h), sheet.group(f"{name}.hidden", hidden)
        sheet.norm(f"{name}.norm1", "stream")
        sheet.linear(f"{name}.attn.qkv", f"{h}*{qk} | {h}*{qk} | {h}*{vo}", "stream")
        if normed:
            sheet.norm(f"{name}.attn.q_norm", qk)
            sheet.norm(f"{name}.attn.k_norm", qk)
        sheet.linear(f"{name}.attn.proj", "stream", f"{h}*{vo}")
        sheet.norm(f"{name}.norm2", "stream")
        sheet.linear(f"{name}.mlp.fc1", hid, "stream")
        sheet.linear(f"{name}.mlp.fc2", "stream", hid)
    sheet.norm("norm", "stream")
    sheet.linear("head", ".", "stream")


def _vit_tiny() -> Truth:
    sheet = Sheet()
    _tokens(sheet, 192)
    _blocks(sheet, depth=12, heads=3, dims=64, hidden=768)

    def make() -> Example:
        timm = library("timm")
        with torch.device("meta"):
            model = timm.create_model("vit_tiny_patch16_224")
        return Example(model, (torch.zeros(2, 3, 224, 224),), (torch.zeros(3, 3, 224, 224),))

    return sheet.truth(make)


def _vit_normed() -> Truth:
    sheet = Sheet()
    _tokens(sheet, 12)
    _blocks(sheet, depth=2, heads=3, dims=4, hidden=24, normed=True)

    def make() -> Example:
        model = library("timm").models.VisionTransformer(
            img_size=8,
            patch_size=4,
            num_classes=7,
            embed_dim=12,
            depth=2,
            num_heads=3,
            mlp_ratio=2,
            qk_norm=True,
        )
        return Example(model, (torch.randn(2, 3, 8, 8),), (torch.randn(3, 3, 8, 8),))

    return sheet.truth(make)


def _vit_transformers() -> Truth:
    """Queries, keys and values from matrices of their own, all with biases."""
    sheet = Sheet()
    sheet.group("stream", 12)
    sheet.tensor("vit.embeddings.cls_token", "., ., stream")
    sheet.tensor("vit.embeddings.position_embeddings", "., ., stream")
    sheet.linear("vit.embeddings.patch_embeddings.projection", "stream", ".", kernel=2)
    for layer in range(2):
        name = f"vit.layers.{layer}"
        h = sheet.group(f"{name}.heads", 3)
        qk, vo = sheet.group(f"{name}.qk", 4, h), sheet.group(f"{name}.vo", 4, h)
        hid = sheet.group(f"{name}.hidden", 10)
        sheet.norm(f"{name}.layernorm_before", "stream")
        sheet.linear(f"{name}.attention.q_proj", f"{h}*{qk}", "stream")
        sheet.linear(f"{name}.attention.k_proj", f"{h}*{qk}", "stream")
        sheet.linear(f"{name}.attention.v_proj", f"{h}*{vo}", "stream")
        sheet.linear(f"{name}.attention.o_proj", "stream", f"{h}*{vo}")
        sheet.norm(f"{name}.layernorm_after", "stream")
        sheet.linear(f"{name}.mlp.fc1", hid, "stream")
        sheet.linear(f"{name}.mlp.fc2", "stream", hid)
    sheet.norm("vit.layernorm", "stream")
    sheet.linear("classifier", ".", "stream")

    def make() -> Example:
        transformers = library("transformers")
        config = transformers.ViTConfig(
            hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=10, image_size=8,
            patch_size=4, num_labels=7,
        )  # fmt: skip
        model = transformers.ViTForImageClassification(config)
        return Example(model, (torch.randn(2, 3, 8, 8),), (torch.randn(3, 3, 8, 8),))

    return sheet.truth(make)


TRUTHS = {
    "vit_tiny": _vit_tiny(),
    "vit_normed": _vit_normed(),
    "vit_transformers": _vit_transformers(),
}
