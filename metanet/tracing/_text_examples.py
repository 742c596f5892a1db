"""Tokens, masks and boxes, as networks of transformers take them."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._draw import TEXT, Draw, makes, one, reads
from ._examples import BATCHES

LENGTHS = (11, 14)
"""Tokens of an example and of its check; more where windows or experts ask for it."""

_LONGEST = 128  # an example that is to be recorded, and verified many times, stays cheap
_HITS = (
    4  # expected tokens for each expert of a mixture: a parameter that nobody reads would be pinned
)
_WINDOWS = (
    "sliding_window",
    "attention_window",
    "attention_window_size",
    "local_attention",
    "window_size",
)
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_k", "top_k")
_READERS = ("ForSequenceClassification", "ForQuestionAnswering", "ForTokenClassification")


@makes("input_ids")
def _input_ids(draw: Draw) -> Tensor | None:
    is_for_sound = _hears(draw) and not hasattr(draw.config, "text_config")
    if is_for_sound and not reads(draw, "audio"):
        return None  # text is an alternative
    text = draw.part(*TEXT)
    ids = draw.integers(_plain_tokens(draw, text), _length(draw, text))
    end = one(getattr(text, "eos_token_id", None))
    if end is None or not _pools_at_the_end(draw.model):
        return ids
    if end < text.vocab_size:
        ids[:, -1] = end
    return ids


def _hears(draw: Draw) -> bool:
    """Whether sound is what the network is for."""
    if getattr(draw.model, "main_input_name", None) in ("input_features", "input_values"):
        return True
    return draw.config.is_encoder_decoder and draw.takes("input_features")


@makes("decoder_input_ids")
def _decoder_input_ids(draw: Draw) -> Tensor | None:
    if type(draw.model).__name__.endswith(_READERS):
        return None  # they feed the decoder the same text
    text = draw.part("decoder", *TEXT)
    return draw.integers(_plain_tokens(draw, text), _length(draw, text) - 2)


@makes("attention_mask", offered=False)
def _attention_mask(draw: Draw) -> Tensor:
    text = draw.part(*TEXT)
    return torch.ones(draw.batch, _length(draw, text), dtype=torch.long)


@makes("token_type_ids", offered=False)
def _token_type_ids(draw: Draw) -> Tensor:
    return torch.zeros_like(_attention_mask(draw))


@makes("bbox")
def _bbox(draw: Draw) -> Tensor | None:
    """Boxes of words on a page: left, top, right, bottom."""
    text = draw.part(*TEXT)
    largest = draw.find("max_2d_position_embeddings", default=1024)
    corner = draw.integers(list(range(largest // 2)), _length(draw, text), 2)
    size = draw.integers(list(range(1, largest // 2)), _length(draw, text), 2)
    return torch.cat([corner, corner + size], dim=-1)


def _length(draw: Draw, text: Any) -> int:
    length = LENGTHS[draw.step]
    fields = text.to_dict()  # reading the attribute is an error where layers differ in it
    windows = [one(fields.get(name)) for name in _WINDOWS]
    narrow = [window for window in windows if isinstance(window, int) and window <= _LONGEST]
    length += max(narrow, default=0)
    experts = draw.find(*_EXPERTS, within=text)
    if experts:
        active = draw.find(*_CHOSEN, within=text, default=1)
        needed = math.ceil(_HITS * one(experts) / (one(active) * BATCHES[0]))
        length = max(length, min(needed, _LONGEST) + 3 * draw.step)
    positions = draw.find(*_POSITIONS, within=text)
    # RoBERTa and its kin count positions from the padding token on.
    return max(3, min(length, positions - 7 + 3 * draw.step)) if positions else length


def _plain_tokens(draw: Draw, text: Any) -> list[int]:
    """Tokens without a meaning of their own: padding would be masked out, placeholders replaced by
    images."""
    special = set(_special(draw.config.to_dict()))
    vocabulary = range(min(draw.find("vocab_size", within=text, default=1000), 1000))
    return [token for token in vocabulary if token not in special] or list(vocabulary)


def _special(config: Any) -> Iterator[int]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _special(value)
        elif re.search(r"token(_id|_index|_ids)$", str(name)):
            tokens = value if isinstance(value, list | tuple) else [value]
            yield from (token for token in tokens if isinstance(token, int))


def _pools_at_the_end(model: nn.Module) -> bool:
    """Whether what the model returns is read off where the end-of-text token stands."""
    name = type(model).__name__
    config: Any = model.config
    return "CLIP" in name or (config.is_encoder_decoder and name.endswith(_READERS))
