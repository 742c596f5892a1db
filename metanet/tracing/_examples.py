"""Example inputs that a network's own configuration tells: one small function for each library that
it may come from.

No library is imported here: networks are recognised by the modules of their classes and by
attributes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TraceError

BATCHES = (2, 3)
"""Batch sizes of an example and of its check: never 1, along which nothing could be told apart."""

IMAGES = (128, 160)
"""Heights and widths of images for networks that take any: 4 x 4 and 5 x 5 are left after five
halvings."""

_LARGE_IMAGES = (224, 256)


@dataclass(frozen=True, kw_only=True)
class Example:
    """Inputs of a network: ``model(*args, **kwargs)``.

    On the CPU, always the same for the same configuration.

    Attributes:
        args, kwargs: with a batch of 2.
        check: ``(args, kwargs)`` of other sizes: another batch, and another length or image size
            where the network takes one. ``None`` where only the network's author could tell.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    check: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None


_Maker = Callable[[nn.Module], Example | None]
_MAKERS: list[tuple[Callable[[nn.Module], bool], _Maker]] = []


def examples_for(predicate: Callable[[nn.Module], bool]) -> Callable[[_Maker], _Maker]:
    """Register a function ``model -> Example``.

    It is asked for the models that ``predicate`` accepts; the first match counts.
    """

    def register(make: _Maker) -> _Maker:
        _MAKERS.append((predicate, make))
        return make

    return register


def example_inputs(model: nn.Module) -> Example | None:
    """Example inputs of a network that carries its configuration.

    Known are timm, transformers, torchvision's image networks, and every module that has an
    attribute ``example_inputs``: a tensor, a tuple of positional inputs, a dict of keyword inputs,
    or a function without arguments that returns one of these; ``check_inputs`` may be given beside
    it, in the same forms.

    Returns:
        ``None`` if nothing tells what the network takes.

    Raises:
        TraceError: an attribute ``example_inputs`` or ``check_inputs`` of another form.
    """
    for predicate, make in _MAKERS:
        if predicate(model):
            with torch.device("cpu"):  # whatever the caller's default device is
                return make(model)
    return None


def comes_from(model: nn.Module, package: str) -> bool:
    """Whether a class of the model, or one that it inherits from, is defined in ``package``."""
    return any(f"{cls.__module__}.".startswith(f"{package}.") for cls in type(model).__mro__)


def image(batch: int, channels: int, height: int, width: int | None = None) -> Tensor:
    """A random image of shape ``(batch, channels, height, width)``, the same at every call."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, channels, height, width or height, generator=generator)


@examples_for(lambda model: getattr(model, "example_inputs", None) is not None)
def _own(model: nn.Module) -> Example:
    """What the module says itself."""
    args, kwargs = _inputs(model, "example_inputs")
    has_check = getattr(model, "check_inputs", None) is not None
    check = _inputs(model, "check_inputs") if has_check else None
    return Example(args=args, kwargs=kwargs, check=check)


def _inputs(model: nn.Module, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    inputs = getattr(model, name)
    if callable(inputs) and not isinstance(inputs, Tensor):
        inputs = inputs()
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise TraceError(
        f"{type(model).__name__}.{name} gave {type(inputs).__name__}, expected a tensor, a tuple of "
        "positional inputs, a dict of keyword inputs, or a function that returns one of these"
    )


@examples_for(lambda model: comes_from(model, "timm") and _timm_config(model) is not None)
def _timm(model: nn.Module) -> Example:
    """Images of the size that the network was made for, or small ones where it takes any size."""
    config = _timm_config(model)
    assert config is not None
    channels, *size = config["input_size"]
    channels = _timm_channels(model, config) or channels
    made_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if config.get("fixed_input_size") or _strict(model):
        size = tuple(made_for or size)
        return _images(channels, size, size)
    least = max(config.get("min_input_size") or (0, 0, 0))
    # Sizes that windows and merged patches divide, where the network has such.
    unit = gcd(*size, least) if least else IMAGES[1] - IMAGES[0]
    # VGG reads its last feature map by a convolution, of this kernel size, after five halvings.
    kernel = getattr(getattr(model, "pre_logits", None), "input_kernel_size", 0)
    least = max(least, 32 * kernel, IMAGES[0])
    first = -(-least // unit) * unit  # the next multiple
    second = first + unit
    return _images(channels, (first, first), (second, second))


def _timm_config(model: nn.Module) -> Mapping[str, Any] | None:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if not config or not config.get("input_size"):
        return None
    return config


def _strict(model: nn.Module) -> bool:
    return any(getattr(module, "strict_img_size", False) for module in model.modules())


def _timm_channels(model: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Of the first convolution: ``in_chans=1`` is no part of the configuration."""
    first = config.get("first_conv")
    if isinstance(first, tuple | list) and first:
        first = first[0]
    if not isinstance(first, str):
        return None
    modules = dict(model.named_modules())
    channels = getattr(modules.get(first), "in_channels", None)
    # TResNet folds blocks of 4 x 4 pixels into channels before it: 3 become 48.
    folds: list[Any] = [m for m in model.modules() if type(m).__name__ == "SpaceToDepth"]
    if channels and folds:
        return channels // folds[0].bs ** 2
    return channels


def _of_torchvision(model: nn.Module) -> bool:
    return comes_from(model, "torchvision.models") and not comes_from(
        model, "torchvision.models.detection"
    )


@examples_for(_of_torchvision)
def _torchvision(model: nn.Module) -> Example | None:
    """Images; what networks for clips and optical flow take is left to the caller."""
    kind = type(model).__module__.split(".")[2]
    if kind in ("optical_flow", "quantization", "video"):
        return None
    size = getattr(model, "image_size", None)
    if isinstance(size, int):  # vision transformers
        return _images(3, (size, size), (size, size))
    if kind == "maxvit":
        return _images(3, _LARGE_IMAGES[:1] * 2, _LARGE_IMAGES[:1] * 2)
    if kind == "inception":
        return _images(3, (299, 299), (331, 331))
    # Classifiers that flatten a pooled map of several cells (VGG, AlexNet) repeat the cells of a
    # smaller map.
    pools = [module for module in model.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    flattens = any(_cells(pool.output_size) > 1 for pool in pools)
    first, second = _LARGE_IMAGES if flattens else IMAGES
    return _images(3, (first, first), (second, second))


def _cells(size: Any) -> int:
    sides = size if isinstance(size, tuple) else (size, size)
    return max(side or 1 for side in sides)


def _images(channels: int, first: tuple[int, ...], second: tuple[int, ...]) -> Example:
    one = image(BATCHES[0], channels, *first)
    other = image(BATCHES[1], channels, *second)
    return Example(args=(one,), check=((other,), {}))
