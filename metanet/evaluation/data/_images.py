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
_LARGEST = 2**31


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
    folder: Path,
    model: nn.Module,
    arch: str,
    shape: Sequence[int] | None = None,
    size: Any = None,
    mean: Any = None,
    std: Any = None,
) -> Samples:
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
    subfolders = [path for path in folder.iterdir() if path.is_dir()]
    classes = sorted(path for path in subfolders if not path.name.startswith("."))
    if not classes:
        raise MetanetError(
            f"data={folder} has no subfolders: images are expected in one subfolder a class"
        )
    files: list[tuple[Path, int]] = []
    for number, subfolder in enumerate(classes):
        paths = sorted(path for path in subfolder.rglob("*") if _is_image_file(path))
        if not paths:
            raise MetanetError(
                f"data={folder}: {subfolder.name} has no images ({', '.join(SUFFIXES)})"
            )
        files += [(path, number) for path in paths]
    look = _look(folder, model, arch, shape, size, mean, std)
    stays = len(files) * look.channels * look.size[0] * look.size[1] <= _LARGEST
    decoded: dict[int, Tensor] = {}
    shift = torch.tensor(look.mean).view(-1, 1, 1)
    scale = torch.tensor(look.std).view(-1, 1, 1)

    def pixels(number: int) -> Tensor:
        if number in decoded:
            return decoded[number]
        image = _read(files[number][0], look)
        if stays:
            decoded[number] = image
        return image

    def batch(rows: Tensor) -> tuple[Tensor, Tensor]:
        numbers = rows.tolist()
        images = torch.stack([pixels(number) for number in numbers]).float() / 255
        targets = torch.tensor([files[number][1] for number in numbers])
        return (images - shift) / scale, targets

    return len(files), batch


def _look(
    folder: Path, model: nn.Module, arch: str, shape: Any, size: Any, mean: Any, std: Any
) -> Look:
    """What the user says, else the network's configuration, else the shape of a sample."""
    config = dict(_configured(model, arch))
    if shape is None:
        shape = _example_shape(model)
    else:
        config["size"] = tuple(shape[1:])
    if shape is not None and len(shape) != 3:
        raise MetanetError(
            f"data={folder}: input_shape={list(shape)} is no image, "
            "expected [channels,height,width]"
        )
    if size is None:
        size = config.get("size", None if shape is None else tuple(shape[1:]))
    pixels = _size(folder, size)
    channels = int(shape[0]) if shape is not None else _first_channels(model)
    if channels not in (1, 3):
        raise MetanetError(
            f"data={folder}: the network takes images of {channels} channels; 1 or 3 can be read"
        )
    shift = _per_channel("mean", mean, config.get("mean", 0.0), channels)
    scale = _per_channel("std", std, config.get("std", 1.0), channels)
    return Look(channels, pixels, config.get("crop", 1.0), shift, scale)


def _example_shape(model: nn.Module) -> Any:
    """Of one sample, by the images among the network's example inputs."""
    example = example_inputs(model)
    if example is None:
        return None
    inputs = (*example.args, *example.kwargs.values())
    return next((x.shape[1:] for x in inputs if _is_image(x)), None)


def _size(folder: Path, size: Any) -> tuple[int, int]:
    """Height and width."""
    if size is None:
        raise MetanetError(
            f"data={folder}: nothing says how large the network's images are: give data_args.size="
        )
    pair = (size, size) if isinstance(size, int) else size
    is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
    if not is_pair or not all(isinstance(n, int) and n > 0 for n in pair):
        shown = tuple(pair) if isinstance(pair, list) else pair
        raise MetanetError(
            f"data_args.size={shown}: give one number, or height and width, e.g. [224,224]"
        )
    height, width = pair
    return height, width


def _per_channel(name: str, option: Any, default: Any, channels: int) -> list[float]:
    """One number for each channel: those of the user, or those of the network's configuration.

    3 channels:  0.5 -> 0.5 0.5 0.5        1 channel, configured for colours:  .4 .5 .6 -> .5
    """
    value = default if option is None else option
    numbers = [value] if isinstance(value, (int, float)) else list(value)
    if option is None and len(numbers) != channels:
        numbers = [sum(numbers) / len(numbers)]
    if len(numbers) == 1:
        numbers = numbers * channels
    if len(numbers) != channels or (name == "std" and any(number <= 0 for number in numbers)):
        raise MetanetError(
            f"data_args.{name}={numbers}: give one number, or one for each of {channels} channels"
        )
    return [float(number) for number in numbers]


def _configured(model: nn.Module, arch: str) -> Mapping[str, Any]:
    """What timm, or a Hugging Face folder, says of images."""
    timm = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(timm, Mapping) and timm.get("input_size"):
        # create_model(img_size=...)
        asked = getattr(getattr(model, "patch_embed", None), "img_size", None)
        return _stated(
            size=asked if isinstance(asked, tuple) else tuple(timm["input_size"][1:]),
            crop=timm.get("crop_pct"),
            mean=timm.get("mean"),
            std=timm.get("std"),
        )
    path = Path(arch.removeprefix("hf:")).expanduser() / "preprocessor_config.json"
    if not path.is_file():
        return {}
    config = validated(_Preprocessor, read_json(path), f"'{path}'")
    size: Any = config.crop_size or config.size
    if isinstance(size, dict):
        has_both = {"height", "width"} <= size.keys()
        size = (size["height"], size["width"]) if has_both else size.get("shortest_edge")
    return _stated(size=size, mean=config.image_mean, std=config.image_std)


def _stated(**values: Any) -> dict[str, Any]:
    """Those that somebody says."""
    return {name: value for name, value in values.items() if value is not None}


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


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
    x = (scaled[0] - width) // 2
    y = (scaled[1] - height) // 2
    array = np.array(image.crop((x, y, x + width, y + height)))
    return torch.from_numpy(array).view(height, width, look.channels).permute(2, 0, 1).contiguous()
