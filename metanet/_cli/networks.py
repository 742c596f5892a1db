"""What commands about several networks are given: checkpoints, the network they belong to, data.

::

    a=PATH b=PATH  ---- open_files ----> by the names of the files
    arch=REF       ---- make_model ----> the network ------ fit ------> by the names of the network
    data=REF       ---- with_data -----> the network and its batches
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..alignment import MATCHERS, Alignment
from ..architecture import Architecture
from ..checkpoints import Checkpoint, check_dequantised, load_checkpoint
from ..errors import MetanetError
from ..evaluation import batch_inputs, cut, fit_to
from ..evaluation.data import load_data
from ..merging import DataPerModel
from ..sources import load_factory, seeded_network
from ..tracing import example_inputs, tensors_in
from .tracing import Inputs, examples_of, trace_timed

ALIGNMENT_FILE = "alignment.safetensors"
_LARGE = 5e8  # values: from here on the module is made without memory, unless something runs it


@dataclass(frozen=True)
class Network:
    """The network that checkpoints belong to, and what it is run on.

    Attributes:
        model: with random weights; on the meta device if it is large and nothing runs it.
        data: batches; ``None`` if none are given.
        train_data: batches that something is fitted to; ``data`` if no others are given.
    """

    model: nn.Module
    data: Any
    train_data: Any


@dataclass(frozen=True)
class Pair:
    """Two checkpoints of one network.

    Attributes:
        network: what they belong to.
        a, b: by the names of the network.
        stored_a, stored_b: by the names of their files.
    """

    network: Network
    a: Checkpoint
    b: Checkpoint
    stored_a: Checkpoint
    stored_b: Checkpoint


def open_pair(options: Mapping[str, Any]) -> Pair:
    """Open ``a`` and ``b``, fit them to the network ``arch``, and open the data.

    Args:
        options: with ``a``, ``b``, and what :func:`make_model` and :func:`with_data` read.

    Raises:
        MetanetError: one of them does not exist, or they do not belong together.
    """
    stored_a, stored_b = open_files((options["a"], options["b"]))
    model = make_model(options, stored_a)
    a = fit_to(model, stored_a)
    b = fit_to(model, stored_b)
    return Pair(with_data(model, options), a, b, stored_a, stored_b)


def open_files(paths: Iterable[str]) -> list[Checkpoint]:
    """Checkpoints by the names of their files.

    Raises:
        CheckpointError: one does not exist, can't be read, or is quantised.
    """
    opened = [load_checkpoint(Path(path).expanduser()) for path in paths]
    for checkpoint in opened:
        check_dequantised(checkpoint)  # before the network is made, which may take long
    return opened


def make_model(options: Mapping[str, Any], like: Checkpoint) -> nn.Module:
    """The network ``arch``, with random weights.

    Args:
        options: with ``arch``, ``arch_args``, ``data`` and ``seed``.
        like: a checkpoint of it, which tells how large it is.
    """
    values = sum(map(math.prod, like.shapes.values()))
    runs = options["data"] is not None
    meta = values > _LARGE and not runs
    return seeded_network(options["arch"], options["seed"], meta, options["arch_args"])


def check_without_network(options: Mapping[str, Any]) -> None:
    """Refuse what is of no use without ``arch``.

    Raises:
        MetanetError: data, arguments of the network, or the shape of its inputs are given.
    """
    useless = [name for name in ("data", "arch_args", "input_shape") if options[name]]
    if useless:
        raise MetanetError(
            f"{useless[0]}= needs the network: give arch=timm:NAME, hf:FOLDER, "
            "package.module:factory"
        )
    _check_data_args(options)


def with_data(model: nn.Module, options: Mapping[str, Any]) -> Network:
    """The network with its batches.

    Args:
        model: the network.
        options: with ``arch``, ``data``, ``data_args``, ``input_shape``, ``seed``, and perhaps
            ``train_data``.

    Raises:
        MetanetError: there are no such data, or they are not the network's.
    """
    _check_data_args(options)
    data = _load(options["data"], model, options)
    train_data = _load(options.get("train_data"), model, options)
    return Network(model, data, data if train_data is None else train_data)


def _check_data_args(options: Mapping[str, Any]) -> None:
    if options["data"] is not None:
        return
    for name, value in options["data_args"].items():
        if value is not None:
            raise MetanetError(f"data_args.{name} needs data=")


def _load(ref: str | list[str] | None, model: nn.Module, options: Mapping[str, Any]) -> Any:
    """Batches of one reference, or of one for each model of a merge."""
    if ref is None:
        return None
    if isinstance(ref, list):
        return DataPerModel([_load(ref_of_one, model, options) for ref_of_one in ref])
    return load_data(
        ref, model, options["arch"], options["data_args"], options["seed"], options["input_shape"]
    )


def trace_network(network: Network, options: Mapping[str, Any]) -> Architecture:
    """The architecture, traced with the network's own examples, inputs of ``input_shape``, or the
    first batch.

    Args:
        network: what is traced.
        options: with ``arch``, ``input_shape`` and ``seed``.

    Raises:
        MetanetError: nothing says what the network takes, or it can't be traced.
    """
    model = network.model
    ref = options["arch"]
    input_shape = options["input_shape"]
    tells_inputs = input_shape is not None or example_inputs(model) is not None
    if network.data is not None and not tells_inputs:
        examples = _first_samples(network.data)
    else:
        examples = examples_of(model, ref, input_shape, options["seed"])
    architecture, _ = trace_timed(model, ref, examples, input_shape)
    return architecture


def _first_samples(data: Any) -> list[Inputs]:
    """Two samples of the first batch, and three as a check where it has so many."""
    batch = next(iter(data), None)
    if batch is None:
        raise MetanetError("the data yielded no batch")
    inputs = batch_inputs(batch)
    size = len(next(tensors_in(inputs)))
    if size < 2:
        return [cut(inputs, size, 0, size)]
    return [cut(inputs, size, 0, count) for count in (2, 3) if count <= size]


def matcher_of(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the group ``matcher``.

    Raises:
        MetanetError: it needs data, and there are none.
    """
    settings = dict(options["matcher"])
    name = settings.pop("name")
    needs_data = "data" in MATCHERS.find(name).needs
    on_activations = settings.get("on", "weights") != "weights"
    if (needs_data or on_activations) and options["data"] is None:
        raise MetanetError(f"matcher={name} runs the networks: give data=")
    return name, settings


def load_alignment(ref: str) -> Alignment:
    """What ``metanet align`` left: the folder, or its file."""
    path = Path(ref).expanduser()
    return Alignment.load(path / ALIGNMENT_FILE if path.is_dir() else path)


def loss_of(ref: str | None) -> Any:
    """A loss by its name, or ``package.module:function``."""
    return load_factory(ref) if ref is not None and ":" in ref else ref
