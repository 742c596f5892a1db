"""What commands about several networks are given: the module, its architecture, the checkpoints, a
device, data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..alignment import MATCHERS, Alignment
from ..architecture import Architecture
from ..checkpoints import Checkpoint, check_dequantised, load_checkpoint
from ..errors import MetanetError
from ..evaluation import batch_inputs, cut, fit_to
from ..evaluation.data import load_data
from ..merging import DataPerModel
from ..sources import load_factory
from ..tracing import example_inputs, tensors_in
from .tracing import Inputs, examples_of, seeded_network, trace_timed

ALIGNMENT_FILE = "alignment.safetensors"
_LARGE = 5e8  # values: from here on the module is made without memory, unless something runs it


@dataclass(frozen=True)
class Networks:
    """Checkpoints of one network.

    Attributes:
        model: the network, with random weights; on the meta device if it is large and nothing runs
            it. ``None`` without ``arch``.
        stored: the checkpoints as their files name the tensors.
        fitted: the same by the names of the network; as stored without one.
        data: batches; ``None`` if none are given.
        train_data: batches that something is fitted to; ``data`` if no others are given.
    """

    model: nn.Module | None
    stored: tuple[Checkpoint, ...]
    fitted: tuple[Checkpoint, ...]
    data: Any
    train_data: Any


@dataclass(frozen=True)
class Pair(Networks):
    """Two of them, ``a`` and ``b``."""

    @property
    def a(self) -> Checkpoint:
        return self.fitted[0]

    @property
    def b(self) -> Checkpoint:
        return self.fitted[1]


def open_pair(options: Mapping[str, Any]) -> Pair:
    """Open ``a`` and ``b``: see :func:`open_networks`."""
    return Pair(**vars(open_networks(options, (options["a"], options["b"]))))


def open_networks(options: Mapping[str, Any], paths: Sequence[str]) -> Networks:
    """Open the checkpoints, make the network ``arch``, and the data.

    Args:
        options: with ``arch`` (``None`` only without data), ``arch_args``, ``input_shape``,
            ``data``, ``data_args``, ``seed``, and perhaps ``train_data``.
        paths: of the checkpoints.

    Raises:
        MetanetError: one of them does not exist, or they do not belong together.
    """
    stored = tuple(load_checkpoint(Path(path).expanduser()) for path in paths)
    for each in stored:
        check_dequantised(each)  # before the network is made, which may take long
    model = None
    if options["arch"] is not None:
        large = sum(math.prod(shape) for shape in stored[0].shapes.values()) > _LARGE
        meta = large and options["data"] is None
        model = seeded_network(options["arch"], options["seed"], meta, options["arch_args"])
    elif given := [name for name in ("data", "arch_args", "input_shape") if options[name]]:
        raise MetanetError(
            f"{given[0]}= needs the network: give arch=timm:NAME, hf:FOLDER, package.module:factory"
        )
    fitted = stored if model is None else tuple(fit_to(model, each) for each in stored)

    def load(ref: str | list[str] | None) -> Any:
        more = options["data_args"], options["seed"], options["input_shape"]
        if isinstance(ref, list):
            return DataPerModel([load_data(each, model, options["arch"], *more) for each in ref])
        return None if ref is None else load_data(ref, model, options["arch"], *more)

    data, train_data = load(options["data"]), load(options.get("train_data"))
    if data is None and (
        given := [name for name, value in options["data_args"].items() if value is not None]
    ):
        raise MetanetError(f"data_args.{given[0]} needs data=")
    return Networks(model, stored, fitted, data, data if train_data is None else train_data)


def trace_networks(networks: Networks, ref: str, input_shape: Any, seed: int) -> Architecture:
    """The architecture, traced with the network's own examples, inputs of ``input_shape``, or the
    first batch."""
    if input_shape is None and networks.data is not None and example_inputs(networks.model) is None:
        examples = _first_samples(networks.data)
    else:
        examples = examples_of(networks.model, ref, input_shape, seed)
    return trace_timed(networks.model, ref, examples, input_shape)[0]


def _first_samples(data: Any) -> list[Inputs]:
    """Two samples of the first batch, and three as a check where it has so many."""
    batch = next(iter(data), None)
    if batch is None:
        raise MetanetError("the data yielded no batch")
    args, kwargs = batch_inputs(batch)
    size = len(next(tensors_in((args, kwargs))))
    counts = [n for n in (2, 3) if n <= size] or [size]
    return [cut((args, kwargs), size, 0, n) for n in counts]


def find_device(name: str) -> torch.device:
    """``auto``: a graphics card if there is one.

    Raises:
        MetanetError: there is no such device here.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise MetanetError(
            f"device={name} can't be used: {error}. Choose auto, cpu, cuda or mps."
        ) from error
    if name == "meta":
        raise MetanetError("device=meta has no values: choose auto, cpu, cuda or mps")
    return torch.device(name)


def matcher_of(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the group ``matcher``.

    Raises:
        MetanetError: it needs data, and there are none.
    """
    given = dict(options["matcher"])
    name = given.pop("name")
    runs = "data" in MATCHERS.find(name).needs
    if options["data"] is None and (runs or given.get("on", "weights") != "weights"):
        raise MetanetError(f"matcher={name} runs the networks: give data=")
    return name, given


def load_alignment(given: str) -> Alignment:
    """What ``metanet align`` left: the folder, or its file."""
    path = Path(given).expanduser()
    return Alignment.load(path / ALIGNMENT_FILE if path.is_dir() else path)


def loss_of(given: str | None) -> Any:
    """A loss by its name, or ``package.module:function``."""
    return load_factory(given) if given is not None and ":" in given else given
