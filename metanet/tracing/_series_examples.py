"""Waveforms, time series and the like, as networks of transformers take them."""

import math

import torch
from torch import Tensor, nn

from ._draw import Draw, makes, reads
from ._text_examples import LENGTHS


@makes("input_values", "decoder_input_values")
def _input_values(draw: Draw) -> Tensor | None:
    """A waveform, with a channel for codecs; the audio spectrogram transformer calls its
    spectrogram so too."""
    if reads(draw, "audio"):
        return None
    config = draw.config
    if hasattr(config, "frequency_stride"):
        return draw.normal(config.max_length, config.num_mel_bins)
    strides = getattr(draw.part("encoder"), "conv_stride", None)
    samples = math.prod(strides or [1920]) * (LENGTHS[draw.step] + 4)
    is_codec = not strides and not config.is_encoder_decoder
    if is_codec:
        return draw.normal(getattr(config, "audio_channels", 1), samples)
    return draw.normal(samples)


@makes("input_features")
def _input_features(draw: Draw) -> Tensor | None:
    """A spectrogram: ``(batch, bins, time)`` where a convolution over time reads it, else ``(batch,
    time, bins)``."""
    if reads(draw, "audio"):
        return None
    spectrum = draw.find("spec_size")
    if spectrum:  # CLAP: an image of the spectrogram
        bins = draw.find("num_mel_bins")
        return draw.normal(1, spectrum * (spectrum // bins), bins)
    names = ("feature_projection_input_dim", "input_feat_per_channel", "input_dim", "num_mel_bins")
    bins = draw.find(*names, default=80)
    time = 8 * LENGTHS[draw.step]
    if hasattr(draw.config, "input_feat_per_channel"):
        return draw.normal(time, bins)
    first = next((m for m in draw.model.modules() if isinstance(m, nn.Conv1d)), None)
    if first is None or first.in_channels != bins:
        return draw.normal(time, bins)
    frames = draw.find("max_source_positions")
    return draw.normal(bins, 2 * frames if frames else time)


@makes("past_values")
def _past_values(draw: Draw) -> Tensor:
    config = draw.config
    lags = getattr(config, "lags_sequence", None)
    if lags:
        channels = [config.input_size] if config.input_size > 1 else []
        return draw.normal(config.context_length + max(lags), *channels)
    count = getattr(config, "num_input_channels", None)
    channels = [count] if count else []
    return draw.normal(config.context_length, *channels)


@makes("past_time_features", offered=False)
def _past_time_features(draw: Draw) -> Tensor:
    return draw.normal(
        draw.config.context_length + max(draw.config.lags_sequence), draw.config.num_time_features
    )


@makes("past_observed_mask", offered=False)
def _past_observed_mask(draw: Draw) -> Tensor:
    return torch.ones_like(_past_values(draw))


@makes("future_values")
def _future_values(draw: Draw) -> Tensor | None:
    if not hasattr(draw.config, "lags_sequence"):
        return None  # there it is only the target of a loss
    channels = [draw.config.input_size] if draw.config.input_size > 1 else []
    return draw.normal(draw.config.prediction_length, *channels)


@makes("future_time_features")
def _future_time_features(draw: Draw) -> Tensor:
    return draw.normal(draw.config.prediction_length, draw.config.num_time_features)


@makes("states")
def _states(draw: Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step], draw.config.state_dim)


@makes("actions")
def _actions(draw: Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step], draw.config.act_dim)


@makes("rewards", "returns_to_go")
def _rewards(draw: Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step], 1)


@makes("timesteps")
def _timesteps(draw: Draw) -> Tensor:
    return torch.arange(LENGTHS[draw.step]).expand(draw.batch, -1)


@makes("visual_feats")
def _visual_feats(draw: Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step] - 4, draw.config.visual_feat_dim)


@makes("visual_pos")
def _visual_pos(draw: Draw) -> Tensor:
    return draw.normal(LENGTHS[draw.step] - 4, draw.config.visual_pos_dim)
