"""Images, patches and clips, as networks of transformers take them."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ._draw import VISION, Draw, makes, reads
from ._examples import IMAGES

# Of state dict entries whose presence ties a vision network to one image size.
_FIXED_SIZE = re.compile(r"pos(ition)?_?(emb|enc)|position_|relative|attention_bias")


@makes("pixel_values")
def _pixel_values(draw: Draw) -> Tensor | None:
    if reads(draw, "image"):
        return None
    vision = draw.part(*VISION)
    channels = draw.find("num_channels", "in_channels", "in_chans", within=vision, default=3)
    if draw.takes("spatial_shapes"):
        return draw.normal(math.prod(_grid(draw)), channels * vision.patch_size**2)
    frames = getattr(vision, "num_frames", None)
    return draw.normal(*([frames] if frames else []), channels, *_image_size(draw, vision))


@makes("spatial_shapes")
def _spatial_shapes(draw: Draw) -> Tensor:
    """Rows and columns of patches of each image."""
    return torch.tensor([_grid(draw)] * draw.batch)


@makes("pixel_attention_mask", offered=False)
def _pixel_attention_mask(draw: Draw) -> Tensor:
    return torch.ones(draw.batch, math.prod(_grid(draw)), dtype=torch.long)


@makes("flattened_patches")
def _flattened_patches(draw: Draw) -> Tensor:
    """Patches, each after the row and the column where it was, counted from 1."""
    rows, columns = _grid(draw)
    places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, columns + 1)).expand(
        draw.batch, -1, -1
    )
    return torch.cat(
        [places, draw.normal(rows * columns, draw.find("patch_embed_hidden_size"))], dim=-1
    )


def _grid(draw: Draw) -> tuple[int, int]:
    return 3, 4 + draw.step


@makes("noise")
def _noise(draw: Draw) -> Tensor | None:
    """What a masked autoencoder would draw anew in every forward pass: which patches it leaves
    out."""
    vision = draw.part(*VISION)
    patch = getattr(vision, "patch_size", None)
    if not isinstance(patch, int) or not hasattr(vision, "mask_ratio"):
        return None
    height, width = _image_size(draw, vision)
    return torch.rand(draw.batch, (height // patch) * (width // patch), generator=draw.generator)


def _image_size(draw: Draw, vision: Any) -> tuple[int, int]:
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


@makes("pixel_values_videos", offered=False)
def _pixel_values_videos(draw: Draw) -> Tensor:
    vision = draw.part(*VISION)
    frames = draw.find("num_frames", "frames_per_clip", within=vision, default=4)
    channels = draw.find("num_channels", "in_chans", within=vision, default=3)
    size = draw.find("crop_size", "image_size", within=vision)
    return draw.normal(
        frames, channels, *(size if isinstance(size, list | tuple) else (size, size))
    )


@makes("hidden_states", offered=False)
def _patches(draw: Draw) -> Tensor | None:
    """Images of any size as one row of patches, beside the numbers of patches in ``grid_thw``."""
    if not draw.takes("grid_thw"):
        return None
    channels = draw.find("in_channels", "in_chans", "num_channels", default=3)
    entries = channels * draw.find("temporal_patch_size", default=1) * draw.config.patch_size**2
    count = int(_grid_thw(draw).prod(-1).sum())
    return torch.randn(count, entries, generator=draw.generator)


@makes("grid_thw", offered=False)
def _grid_thw(draw: Draw) -> Tensor:
    return torch.tensor([[1, 8, 8 + 4 * draw.step]] * draw.batch)
