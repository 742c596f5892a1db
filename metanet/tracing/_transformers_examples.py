"""Example inputs of transformers' networks: one small function for each name among the arguments of
``forward``."""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._examples import BATCHES, IMAGES, Example, comes_from, examples_for

LENGTHS = (11, 14)
"""Tokens of an example and of its check; more where windows or experts ask for it."""

_LONGEST = 128  # an example that is to be recorded, and verified many times, stays cheap
_HITS = (
    4  # expected tokens for each expert of a mixture: a parameter that nobody reads would be pinned
)

_TEXT = ("text_encoder", "text_config", "encoder")
_VISION = ("vision_config", "encoder", "backbone_config")
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
# Of state dict entries whose presence ties a vision network to one image size.
_FIXED_SIZE = re.compile(r"pos(ition)?_?(emb|enc)|position_|relative|attention_bias")


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """One set of inputs in the making."""

    model: nn.Module
    step: int  # 0: the example, 1: its check
    parameters: Mapping[str, inspect.Parameter]
    generator: torch.Generator = field(default_factory=torch.Generator)

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def batch(self) -> int:
        return BATCHES[self.step]

    def takes(self, name: str) -> bool:
        return name in self.parameters

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator)

    def integers(self, allowed: list[int], *shape: int) -> Tensor:
        picks = torch.randint(len(allowed), (self.batch, *shape), generator=self.generator)
        return torch.tensor(allowed)[picks]

    def part(self, *names: str) -> Any:
        """The first of these configurations that is nested in the whole one; else the whole one."""
        nested = (getattr(self.config, name, None) for name in names)
        return next((each for each in nested if hasattr(each, "to_dict")), self.config)

    def find(self, *names: str, default: Any = None, within: Any = None) -> Any:
        """The first of these settings that the configuration, or one nested in it, has."""
        for config in _nested(self.config if within is None else within):
            for name in names:
                if (value := getattr(config, name, None)) is not None:
                    return value
        return default


_INPUTS: dict[str, Callable[[_Draw], Any]] = {}
_OFFERED: set[str] = set()


def makes(*names: str, offered: bool = True) -> Callable:
    """Register a function that makes the input called ``names``; one that returns ``None`` leaves
    it out.

    ``offered``: given whenever ``forward`` takes it, else only where ``forward`` has no default for
    it.
    """

    def register(make: Callable[[_Draw], Any]) -> Callable[[_Draw], Any]:
        for name in names:
            _INPUTS[name] = make
            if offered:
                _OFFERED.add(name)
        return make

    return register


@examples_for(lambda model: comes_from(model, "transformers") and hasattr(model, "config"))
def _transformers(model: nn.Module) -> Example | None:
    """Random tokens, images, waveforms, ...: whatever ``forward`` takes, in the sizes that the
    configuration says."""
    first, second = (_draw(model, step) for step in (0, 1))
    return None if first is None or second is None else Example(kwargs=first, check=((), second))


def _draw(model: nn.Module, step: int) -> dict[str, Any] | None:
    parameters = inspect.signature(model.forward).parameters
    draw = _Draw(model=model, step=step, parameters=parameters)
    draw.generator.manual_seed(step)
    inputs: dict[str, Any] = {}
    for name, parameter in parameters.items():
        required = (
            parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        )
        if name in _INPUTS and (
            required or name in _OFFERED or name == getattr(model, "main_input_name", None)
        ):
            inputs[name] = _INPUTS[name](draw)
        if required and inputs.get(name) is None:
            return None
    inputs = {name: value for name, value in inputs.items() if value is not None}
    if not inputs:
        return None
    # A cache only adds outputs, and some models keep it on themselves.
    return {**inputs, "use_cache": False} if "use_cache" in parameters else inputs


# --- text
# ---------------------------------------------------------------------------------------------------------


@makes("input_ids")
def _input_ids(draw: _Draw) -> Tensor | None:
    speech = getattr(draw.model, "main_input_name", None) in ("input_features", "input_values")
    speech = speech or (draw.config.is_encoder_decoder and draw.takes("input_features"))
    if speech and not hasattr(draw.config, "text_config") and not _reads(draw, "audio"):
        return None  # text is an alternative
    text = draw.part(*_TEXT)
    ids = draw.integers(_plain_tokens(draw, text), _length(draw, text))
    end = _one(getattr(text, "eos_token_id", None))
    if _pools_at_the_end(draw.model) and end is not None and end < text.vocab_size:
        ids[:, -1] = end
    return ids


@makes("decoder_input_ids")
def _decoder_input_ids(draw: _Draw) -> Tensor | None:
    if type(draw.model).__name__.endswith(_READERS):
        return None  # they feed the decoder the same text
    text = draw.part("decoder", *_TEXT)
    return draw.integers(_plain_tokens(draw, text), _length(draw, text) - 2)


@makes("attention_mask", offered=False)
def _attention_mask(draw: _Draw) -> Tensor:
    text = draw.part(*_TEXT)
    return torch.ones(draw.batch, _length(draw, text), dtype=torch.long)


@makes("token_type_ids", offered=False)
def _token_type_ids(draw: _Draw) -> Tensor:
    return torch.zeros_like(_attention_mask(draw))


@makes("bbox")
def _bbox(draw: _Draw) -> Tensor | None:
    """Boxes of words on a page: left, top, right, bottom."""
    text = draw.part(*_TEXT)
    largest = draw.find("max_2d_position_embeddings", default=1024)
    corner = draw.integers(list(range(largest // 2)), _length(draw, text), 2)
    size = draw.integers(list(range(1, largest // 2)), _length(draw, text), 2)
    return torch.cat([corner, corner + size], dim=-1)


def _length(draw: _Draw, text: Any) -> int:
    length = LENGTHS[draw.step]
    fields = text.to_dict()  # reading the attribute is an error where layers differ in it
    windows = [window for name in _WINDOWS if isinstance(window := _one(fields.get(name)), int)]
    length += max((window for window in windows if window <= _LONGEST), default=0)
    if experts := draw.find(*_EXPERTS, within=text):
        chosen = draw.find(*_CHOSEN, within=text, default=1)
        needed = math.ceil(_HITS * _one(experts) / (_one(chosen) * BATCHES[0]))
        length = max(length, min(needed, _LONGEST) + 3 * draw.step)
    positions = draw.find(*_POSITIONS, within=text)
    # RoBERTa and its kin count positions from the padding token on.
    return max(3, min(length, positions - 7 + 3 * draw.step)) if positions else length


def _plain_tokens(draw: _Draw, text: Any) -> list[int]:
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
            yield from (
                v
                for v in (value if isinstance(value, list | tuple) else [value])
                if isinstance(v, int)
            )


def _pools_at_the_end(model: nn.Module) -> bool:
    """Whether what the model returns is read off where the end-of-text token stands."""
    name = type(model).__name__
    return "CLIP" in name or (model.config.is_encoder_decoder and name.endswith(_READERS))


def _one(value: Any) -> Any:
    """The largest where a setting is given layer by layer."""
    return max(value) if isinstance(value, list | tuple) and value else value


def _nested(config: Any) -> Iterator[Any]:
    """The configuration and those in it, breadth first."""
    level = [config]
    while level:
        yield from level
        level = [
            v
            for c in level
            for v in vars(c).values()
            if hasattr(v, "model_type") and hasattr(v, "to_dict")
        ]


# --- images
# -------------------------------------------------------------------------------------------------------


@makes("pixel_values")
def _pixel_values(draw: _Draw) -> Tensor | None:
    if _reads(draw, "image"):
        return None
    vision = draw.part(*_VISION)
    channels = draw.find("num_channels", "in_channels", "in_chans", within=vision, default=3)
    if draw.takes("spatial_shapes"):
        return draw.normal(math.prod(_grid(draw)), channels * vision.patch_size**2)
    frames = getattr(vision, "num_frames", None)
    return draw.normal(*([frames] if frames else []), channels, *_image_size(draw, vision))


@makes("spatial_shapes")
def _spatial_shapes(draw: _Draw) -> Tensor:
    """Rows and columns of patches of each image."""
    return torch.tensor([_grid(draw)] * draw.batch)


@makes("pixel_attention_mask", offered=False)
def _pixel_attention_mask(draw: _Draw) -> Tensor:
    return torch.ones(draw.batch, math.prod(_grid(draw)), dtype=torch.long)


@makes("flattened_patches")
def _flattened_patches(draw: _Draw) -> Tensor:
    """Patches, each after the row and the column where it was, counted from 1."""
    rows, columns = _grid(draw)
    places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, columns + 1)).expand(
        draw.batch, -1, -1
    )
    return torch.cat(
        [places, draw.normal(rows * columns, draw.find("patch_embed_hidden_size"))], dim=-1
    )


def _grid(draw: _Draw) -> tuple[int, int]:
    return 3, 4 + draw.step


@makes("noise")
def _noise(draw: _Draw) -> Tensor | None:
    """What a masked autoencoder would draw anew in every forward pass: which patches it leaves
    out."""
    vision = draw.part(*_VISION)
    patch = getattr(vision, "patch_size", None)
    if not isinstance(patch, int) or not hasattr(vision, "mask_ratio"):
        return None
    height, width = _image_size(draw, vision)
    return torch.rand(draw.batch, (height // patch) * (width // patch), generator=draw.generator)


def _image_size(draw: _Draw, vision: Any) -> tuple[int, int]:
    size = draw.find("image_size", "img_size", within=vision)
    # Networks for clips, whose position tables are no part of the state dict, have a number of
    # frames.
    fixed = getattr(vision, "num_frames", None) or any(
        map(_FIXED_SIZE.search, draw.model.state_dict(keep_vars=True))
    )
    if size is None or not fixed:
        size = IMAGES[draw.step]
    if isinstance(size, Mapping):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return height, width


def _reads(draw: _Draw, what: str) -> bool:
    """Whether this is a language model that reads images or sound where its text has placeholders:
    text will do."""
    placeholder = draw.find(f"{what}_token_id", f"{what}_token_index")
    return draw.takes("input_ids") and placeholder is not None


@makes("pixel_values_videos", offered=False)
def _pixel_values_videos(draw: _Draw) -> Tensor:
    vision = draw.part(*_VISION)
    frames = draw.find("num_frames", "frames_per_clip", within=vision, default=4)
    channels = draw.find("num_channels", "in_chans", within=vision, default=3)
    size = draw.find("crop_size", "image_size", within=vision)
    return draw.normal(
        frames, channels, *(size if isinstance(size, list | tuple) else (size, size))
    )


@makes("hidden_states", offered=False)
def _patches(draw: _Draw) -> Tensor | None:
    """Images of any size as one row of patches, beside the numbers of patches in ``grid_thw``."""
    if not draw.takes("grid_thw"):
        return None
    channels = draw.find("in_channels", "in_chans", "num_channels", default=3)
    entries = channels * draw.find("temporal_patch_size", default=1) * draw.config.patch_size**2
    count = int(_grid_thw(draw).prod(-1).sum())
    return torch.randn(count, entries, generator=draw.generator)


@makes("grid_thw", offered=False)
def _grid_thw(draw: _Draw) -> Tensor:
    return torch.tensor([[1, 8, 8 + 4 * draw.step]] * draw.batch)


# --- sound
# --------------------------------------------------------------------------------------------------------


@makes("input_values", "decoder_input_values")
def _input_values(draw: _Draw) -> Tensor | None:
    """A waveform, with a channel for codecs; the audio spectrogram transformer calls its
    spectrogram so too."""
    if _reads(draw, "audio"):
        return None
    config = draw.config
    if hasattr(config, "frequency_stride"):
        return draw.normal(config.max_length, config.num_mel_bins)
    strides = getattr(draw.part("encoder"), "conv_stride", None)
    samples = math.prod(strides or [1920]) * (LENGTHS[draw.step] + 4)
    codec = not strides and not config.is_encoder_decoder
    return draw.normal(*([getattr(config, "audio_channels", 1)] if codec else []), samples)


@makes("input_features")
def _input_features(draw: _Draw) -> Tensor | None:
    """A spectrogram: ``(batch, bins, time)`` where a convolution over time reads it, else ``(batch,
    time, bins)``."""
    if _reads(draw, "audio"):
        return None
    if spectrum := draw.find("spec_size"):  # CLAP: an image of the spectrogram
        bins = draw.find("num_mel_bins")
        return draw.normal(1, spectrum * (spectrum // bins), bins)
    names = ("feature_projection_input_dim", "input_feat_per_channel", "input_dim", "num_mel_bins")
    bins, time = draw.find(*names, default=80), 8 * LENGTHS[draw.step]
    first = next((m for m in draw.model.modules() if isinstance(m, nn.Conv1d)), None)
    if first is None or first.in_channels != bins or hasattr(draw.config, "input_feat_per_channel"):
        return draw.normal(time, bins)
    return draw.normal(bins, 2 * frames if (frames := draw.find("max_source_positions")) else time)


# --- series and tables
# --------------------------------------------------------------------------------------------


@makes("past_values")
def _past_values(draw: _Draw) -> Tensor:
    config = draw.config
    if lags := getattr(config, "lags_sequence", None):
        channels = [config.input_size] if config.input_size > 1 else []
        return draw.normal(config.context_length + max(lags), *channels)
    return draw.normal(
        config.context_length, *([c] if (c := getattr(config, "num_input_channels", None)) else [])
    )


@makes("past_time_features", offered=False)
def _past_time_features(draw: _Draw) -> Tensor:
    return draw.normal(
        draw.config.context_length + max(draw.config.lags_sequence), draw.config.num_time_features
    )


@makes("past_observed_mask", offered=False)
def _past_observed_mask(draw: _Draw) -> Tensor:
    return torch.ones_like(_past_values(draw))


@makes("future_values")
def _future_values(draw: _Draw) -> Tensor | None:
    if not hasattr(draw.config, "lags_sequence"):
        return None  # there it is only the target of a loss
    channels = [draw.config.input_size] if draw.config.input_size > 1 else []
    return draw.normal(draw.config.prediction_length, *channels)


@makes("future_time_features")
def _future_time_features(draw: _Draw) -> Tensor:
    return draw.normal(draw.config.prediction_length, draw.config.num_time_features)


@makes("states")
def _states(draw: _Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step], draw.config.state_dim)


@makes("actions")
def _actions(draw: _Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step], draw.config.act_dim)


@makes("rewards", "returns_to_go")
def _rewards(draw: _Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step], 1)


@makes("timesteps")
def _timesteps(draw: _Draw) -> Tensor:
    return torch.arange(LENGTHS[draw.step]).expand(draw.batch, -1)


@makes("visual_feats")
def _visual_feats(draw: _Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step] - 4, draw.config.visual_feat_dim)


@makes("visual_pos")
def _visual_pos(draw: _Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step] - 4, draw.config.visual_pos_dim)
