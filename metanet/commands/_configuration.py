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
    parts = _parts(new)
    missing: list[str] = []
    if out_dtype is not None and "model_type" in config:
        fields = _fields(parts, ("dtype", "torch_dtype"))
        for part, key in fields or [(new, "torch_dtype")]:
            part[key] = out_dtype
    if layers is not None:
        missing += _set_layers(parts, layers)
    if vocabulary is not None:
        missing += _set_rows(parts, vocabulary.rows)
        _set_tied(parts, vocabulary.tied)
    if tokens is not None:
        new |= {key: tokens[key] for key in _TOKENS if key in tokens}
    return new, missing


def says_tied(config: Mapping[str, Any]) -> bool | None:
    """Whether a configuration says that the output layer is the embedding; ``None`` where it says
    nothing."""
    fields = _fields(_parts(dict(config)), (_TIED,))
    if not fields:
        return None
    part, key = fields[0]
    return part[key] if isinstance(part[key], bool) else None


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """A configuration, and those of the parts of its network: ``text_config``, ``vision_config``."""
    inner = [value for key, value in config.items() if key.endswith("_config")]
    return [config, *(part for part in inner if isinstance(part, dict))]


def _fields(
    parts: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[tuple[dict[str, Any], str]]:
    """Where one of these keys stands: the configuration that has it, and the key."""
    return [(part, key) for part in parts for key in keys if key in part]


def _set_layers(parts: Sequence[dict[str, Any]], layers: Sequence[int]) -> Iterator[str]:
    """Set the number of layers, and reorder what has one value a layer::

    num_hidden_layers: 3, layer_types: [full, local, full]   with layers 0, 1, 1, 2
    -> num_hidden_layers: 4, layer_types: [full, local, local, full]
    """
    fields = _fields(parts, _LAYERS)
    for part, key in fields:
        before = part[key]
        part[key] = len(layers)
        for name, value in part.items():
            is_by_layer = "layer" in name and isinstance(value, list) and len(value) == before
            if is_by_layer and before > max(layers):
                part[name] = [value[layer] for layer in layers]
    if not fields:
        yield f"the number of layers: set it to {len(layers)}"


def _set_rows(parts: Sequence[dict[str, Any]], rows: Mapping[int, int]) -> Iterator[str]:
    """Set the sizes of vocabularies: rows after -> rows before."""
    for after, before in rows.items():
        fields = [(part, key) for part, key in _fields(parts, VOCABULARY) if part[key] == before]
        for part, key in fields:
            part[key] = after
        if not fields:
            yield f"the size of the vocabulary: set it to {after}"


def _set_tied(parts: Sequence[dict[str, Any]], tied: bool | None) -> None:
    if tied is None:
        return
    for part, key in _fields(parts, (_TIED,)) or [(parts[0], _TIED)]:
        part[key] = tied
