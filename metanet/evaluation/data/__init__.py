"""``data=``: what a network is run on, in every command that runs one.

===========================  =================================================================
``data=``                    batches
===========================  =================================================================
a folder                     images, one subfolder a class: ``(images, classes)``
``x.safetensors``            its tensors ``inputs`` and ``targets``: ``(inputs, targets)``
``package.module:factory``   what the function returns: an iterable of batches that can be read
                             again and again
any other file               text, in windows of tokens for a causal language model:
                             ``{"input_ids", "labels"}``
===========================  =================================================================

Options are given by ``data_args.NAME=VALUE``: ``batch_size`` and ``limit`` (of samples) always;
``size``, ``mean`` and ``std`` of images; ``window`` and ``tokenizer`` of text; a factory takes its
own.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...checkpoints import load_checkpoint
from ...errors import MetanetError, listed
from ...sources import load_factory
from ._batches import Batches as Batches
from ._batches import Limited as Limited
from ._images import image_folder
from ._text import text_file

GRAMMAR = (
    "data= is a folder of images (one subfolder a class), a text file, "
    "a .safetensors file with inputs and targets, or package.module:factory"
)
_FACTORY = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


def load_data(
    ref: str, model: nn.Module, arch: str, args: Mapping[str, Any] | None = None, seed: int = 0,
    shape: Sequence[int] | None = None,
) -> Batches | Limited:  # fmt: skip
    """The batches that ``data=REF`` names, in an order drawn once: the same at every reading.

    Args:
        ref: see :data:`GRAMMAR`.
        model: the network, whose configuration says sizes and scales of images.
        arch: its reference; the folder of ``hf:FOLDER`` has the tokenizer.
        args: options; ``None`` values count as left out.
        seed: of the order, and so of what ``limit`` leaves.
        shape: of one sample, where the user gave it.

    Raises:
        MetanetError: there is no such data, it is empty or of another form, or an option is unknown
            or impossible.
    """
    options = {name: value for name, value in (args or {}).items() if value is not None}
    batch_size = _count(options, "batch_size", 64)
    limit = _count(options, "limit", None)
    path = Path(ref).expanduser()
    if path.is_dir():
        _check_options(options, ref, "an image folder", ("size", "mean", "std"))
        samples = image_folder(path, model, arch, shape, **options)
    elif path.suffix == ".safetensors":
        _check_options(options, ref, "a .safetensors file", ())
        samples = _tensors(path)
    elif path.is_file():
        _check_options(options, ref, "a text file", ("tokenizer", "window"))
        samples = text_file(path, model, arch, **options)
    elif _FACTORY.fullmatch(ref):
        return _made(ref, options, batch_size, limit)
    else:
        raise MetanetError(f"data={ref}: there is no such folder or file. {GRAMMAR}.")
    return Batches(samples, batch_size, limit, seed)


def _count(options: dict[str, Any], name: str, default: int | None) -> Any:
    value = options.pop(name, default)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise MetanetError(f"data_args.{name}={value}: give a number, 1 or more")
    return value


def _check_options(
    options: Mapping[str, Any], ref: str, what: str, allowed: tuple[str, ...]
) -> None:
    unknown = next((name for name in options if name not in allowed), None)
    if unknown is None:
        return
    takes = ", ".join(f"data_args.{name}" for name in ("batch_size", "limit", *allowed))
    raise MetanetError(f"data_args.{unknown}: data={ref} is {what}, which takes {takes}")


def _tensors(path: Path) -> Any:
    file = load_checkpoint(path)
    missing = [name for name in ("inputs", "targets") if name not in file]
    if missing:
        raise MetanetError(
            f"data={path} has no {' and no '.join(missing)}; it has {listed(file) or 'nothing'}"
        )
    inputs, targets = file["inputs"], file["targets"]
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise MetanetError(
            f"data={path}: inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)} must "
            "have one row a sample"
        )
    return len(inputs), lambda rows: (inputs[rows], targets[rows])


def _made(ref: str, options: dict[str, Any], batch_size: int, limit: int | None) -> Limited:
    """What a factory returns; it is told the batch size and the limit if it asks for them."""
    factory: Callable[..., Any] = load_factory(ref)
    signature = inspect.signature(factory)
    sizes = {"batch_size": batch_size, "limit": limit}
    arguments = {
        name: size
        for name, size in sizes.items()
        if name in signature.parameters and size is not None
    }
    try:
        signature.bind(**arguments, **options)
    except TypeError as error:
        words = [f"data_args.{name}={value!r}" for name, value in options.items()]
        listed_words = ", ".join(words) or "no data_args"
        raise MetanetError(
            f"data={ref} can't be called with {listed_words}: {error}. It takes {signature}."
        ) from None
    batches = factory(**arguments, **options)
    if isinstance(batches, nn.Module) or not hasattr(batches, "__iter__"):
        raise MetanetError(
            f"data={ref} returned {type(batches).__name__}, expected an iterable of batches"
        )
    return Limited(batches, limit)
