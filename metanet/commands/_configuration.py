"""``config.json`` brought up to date with what a merge made."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._vocabulary import Vocabulary

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
VOCABULARY = ("vocab_size",)
"""Fields with the number of tokens."""
_TIED = "tie_word_embeddings"
_TOKENS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
)


def updated(
    config: Mapping[str, Any], *, out_dtype: str | None = None, layers: Sequence[int] | None = None,
    vocabulary: Vocabulary | None = None, tokens: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """The configuration of the result, and what it has no field for.

    Args:
        config: of an input.
        out_dtype: of the result, if it is another than that of the inputs.
        layers: for every layer of the result the one that it comes from; ``None``: those of the
            input.
        vocabulary: of the result.
        tokens: configuration of the input whose tokenizer goes with the result, if it is another.
    """
    new: dict[str, Any] = json.loads(json.dumps(config))
    parts = [
        new,
        *(
            value
            for key, value in new.items()
            if key.endswith("_config") and isinstance(value, dict)
        ),
    ]
    if out_dtype is not None and "model_type" in config:
        known = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if key in part]
        for part, key in known or [(new, "torch_dtype")]:
            part[key] = out_dtype
    missing = [] if layers is None else list(_set_layers(parts, layers))
    if vocabulary is not None:
        missing += _set_rows(parts, vocabulary.rows)
        _set_tied(parts, vocabulary.tied)
    if tokens is not None:
        for key in _TOKENS:
            if key in tokens:
                new[key] = tokens[key]
    return new, missing


def says_tied(config: Mapping[str, Any]) -> bool | None:
    """Whether a configuration says that the output layer is the embedding; ``None`` where it says
    nothing."""
    parts = [
        config,
        *(
            value
            for key, value in config.items()
            if key.endswith("_config") and isinstance(value, dict)
        ),
    ]
    found = next((part[_TIED] for part in parts if _TIED in part), None)
    return found if isinstance(found, bool) else None


def _set_layers(parts: Sequence[dict[str, Any]], layers: Sequence[int]) -> Iterator[str]:
    counted = [(part, key) for part in parts for key in _LAYERS if key in part]
    for part, key in counted:
        before, part[key] = part[key], len(layers)
        for name, value in part.items():
            if "layer" in name and isinstance(value, list) and len(value) == before > max(layers):
                part[name] = [value[k] for k in layers]  # layer_types
    if not counted:
        yield f"the number of layers: set it to {len(layers)}"


def _set_rows(parts: Sequence[dict[str, Any]], rows: Mapping[int, int]) -> Iterator[str]:
    for after, before in rows.items():
        known = [(part, key) for part in parts for key in VOCABULARY if part.get(key) == before]
        for part, key in known:
            part[key] = after
        if not known:
            yield f"the size of the vocabulary: set it to {after}"


def _set_tied(parts: Sequence[dict[str, Any]], tied: bool | None) -> None:
    if tied is None:
        return
    for part in [part for part in parts if _TIED in part] or parts[:1]:
        part[_TIED] = tied
