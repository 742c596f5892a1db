"""A folder of images, one subfolder a class, read as the network wants them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict
from torch import Tensor, nn

from ...checkpoints import budget
from ...documents import Document, check_regular, read_json, validated
from ...errors import MetanetError, brief
from ...tracing import example_inputs
from ._batches import Samples

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# bytes of decoded images that stay in memory; larger folders are decoded anew at every reading
_KEPT = 2**31


_Pixels = Annotated[int, Ge(1), Lt(2**16)]
_Scale = Annotated[float, Gt(0), Lt(2**16)]


class _Preprocessor(Document):
    """What is read of a ``preprocessor_config.json``."""

    model_config = ConfigDict(extra="ignore")

    size: _Pixels | dict[str, _Pixels] | None = None
    crop_size: _Pixels | dict[str, _Pixels] | None = None
    image_mean: float | list[float] | None = None
    image_std: _Scale | list[_Scale] | None = None


@dataclass(frozen=True)
class Look:
    """How images are to look.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size: height and width.
        crop: share of the shorter side that is kept, in the middle.
        mean, std: of each channel of images between 0 and 1; they are normalised by these.
    """

    channels: int
    size: tuple[int, int]
    crop: float
    mean: Sequence[float]
    std: Sequence[float]


def image_folder(
    folder: Path, model: nn.Module, arch: str, shape: Sequence[int] | None = None, size: Any = None, mean: Any = None,
    std: Any = None,
) -> Samples:  # fmt: skip
    """The images of a folder, normalised, and the numbers of their subfolders in alphabetical
    order.

    Size, crop, mean and standard deviation are those of timm's configuration, or of the
    ``preprocessor_config.json`` of a Hugging Face folder; what is given wins. Where nothing says
    how to normalise, images are between 0 and 1.

    Args:
        shape: of one sample, where it is known: ``(channels, height, width)``.
        size: height and width, or one number for both.
        mean, std: one number a channel, or one for all.

    Raises:
        MetanetError: no subfolders, no images in one, or nothing says the size.
    """
    classes = sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )
    if not classes:
        raise MetanetError(
            f"data={folder} has no subfolders: images are expected in one subfolder a class"
        )
    files: list[tuple[Path, int]] = []
    for number, each in enumerate(classes):
        found = sorted(p for p in each.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise MetanetError(f"data={folder}: {each.name} has no images ({', '.join(SUFFIXES)})")
        files += [(path, number) for path in found]
    look = _look(folder, model, arch, shape, size, mean, std)
    wide = len(files) * look.channels * look.size[0] * look.size[1] > _KEPT
    kept: dict[int, Tensor] = {}
    shift, scale = (torch.tensor(x).view(-1, 1, 1) for x in (look.mean, look.std))

    def pixels(number: int) -> Tensor:
        if number in kept:
            return kept[number]
        image = _read(files[number][0], look)
        if not wide:
            kept[number] = image
        return image

    def batch(rows: Tensor) -> tuple[Tensor, Tensor]:
        images = torch.stack([pixels(number) for number in rows.tolist()]).float() / 255
        return (images - shift) / scale, torch.tensor(
            [files[number][1] for number in rows.tolist()]
        )

    return len(files), batch


def _look(
    folder: Path, model: nn.Module, arch: str, shape: Any, size: Any, mean: Any, std: Any
) -> Look:
    config = _configured(model, arch)
    if shape is None and (example := example_inputs(model)) is not None:
        shape = next(
            (x.shape[1:] for x in (*example.args, *example.kwargs.values()) if _is_image(x)), None
        )
    elif shape is not None:
        config = {**config, "size": tuple(shape[1:])}
    if shape is not None and len(shape) != 3:
        raise MetanetError(
            f"data={folder}: input_shape={list(shape)} is no image, expected [channels,height,width]"
        )
    size = (
        size
        if size is not None
        else config.get("size", None if shape is None else tuple(shape[1:]))
    )
    if size is None:
        raise MetanetError(
            f"data={folder}: nothing says how large the network's images are: give data_args.size="
        )
    size = (
        (size, size)
        if isinstance(size, int)
        else tuple(size)
        if isinstance(size, (list, tuple))
        else size
    )
    if (
        not isinstance(size, tuple)
        or len(size) != 2
        or not all(isinstance(n, int) and n > 0 for n in size)
    ):
        raise MetanetError(
            f"data_args.size={size}: give one number, or height and width, e.g. [224,224]"
        )
    channels = int(shape[0]) if shape is not None else _first_channels(model)
    if channels not in (1, 3):
        raise MetanetError(
            f"data={folder}: the network takes images of {channels} channels; 1 or 3 can be read"
        )
    told = {}
    for name, given, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        value = given if given is not None else config.get(name, default)
        value = [value] if isinstance(value, (int, float)) else list(value)
        if (
            given is None and len(value) != channels
        ):  # a network for grey images, configured for coloured ones
            value = [sum(value) / len(value)]
        value = value * channels if len(value) == 1 else value
        if len(value) != channels or (name == "std" and any(v <= 0 for v in value)):
            raise MetanetError(
                f"data_args.{name}={value}: give one number, or one for each of {channels} channels"
            )
        told[name] = [float(v) for v in value]
    return Look(channels, size, config.get("crop", 1.0), told["mean"], told["std"])


def _configured(model: nn.Module, arch: str) -> Mapping[str, Any]:
    """What timm, or a Hugging Face folder, says of images."""
    timm = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(timm, Mapping) and timm.get("input_size"):
        made_for = getattr(
            getattr(model, "patch_embed", None), "img_size", None
        )  # create_model(img_size=...)
        size: Any = made_for if isinstance(made_for, tuple) else tuple(timm["input_size"][1:])
        found = {
            "size": size,
            "crop": timm.get("crop_pct"),
            "mean": timm.get("mean"),
            "std": timm.get("std"),
        }
        return {name: value for name, value in found.items() if value is not None}
    path = Path(arch.removeprefix("hf:")).expanduser() / "preprocessor_config.json"
    if not path.is_file():
        return {}
    said = validated(_Preprocessor, read_json(path), f"'{path}'")
    size = said.crop_size or said.size
    if isinstance(size, dict):
        size = (
            (size["height"], size["width"])
            if {"height", "width"} <= set(size)
            else size.get("shortest_edge")
        )
    names = {"size": size, "mean": said.image_mean, "std": said.image_std}
    return {name: value for name, value in names.items() if value is not None}


def _is_image(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point()


def _first_channels(model: nn.Module) -> int:
    """Of the first convolution; 1 where there is none, as for a perceptron."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is None else first.in_channels


def _read(path: Path, look: Look) -> Tensor:
    """``(channels, height, width)`` uint8: the shorter side scaled, then the middle cut out."""
    import numpy as np
    from PIL import Image

    height, width = look.size
    check_regular(path)
    most = budget(path.stat().st_size)
    try:
        with Image.open(path) as file:
            if 4 * file.width * file.height > most:
                raise MetanetError(
                    f"the image {path} says that it has {file.width} x {file.height} pixels, "
                    f"more than a file of its size is read for ({most:,} bytes of memory): "
                    "scale it down"
                )
            image = file.convert("L" if look.channels == 1 else "RGB")
    except MetanetError:
        raise
    except Exception as error:  # the decoders of some fifty formats raise nearly anything
        raise MetanetError(
            f"the image {path} can't be read: {type(error).__name__}: {brief(error)}"
        ) from error
    scale = max(height / image.height, width / image.width) / look.crop
    scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    array = np.array(image.crop((left, top, left + width, top + height)))
    return torch.from_numpy(array).view(height, width, look.channels).permute(2, 0, 1).contiguous()
