"""The command ``merge``: several checkpoints into one, and everything that belongs to it.

::

    paths --open_files--> stored --open_inputs--> by one set of names --merge--> merged, lazily
                             |                                                     |
                             +------------- as_stored: names of the files <--------+
                             |                                                     |
                             +--written_beside: configuration, tokenizer -> out <--+
"""

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._cli.devices import find_device
from .._cli.networks import (
    Network,
    check_without_network,
    load_alignment,
    loss_of,
    make_model,
    matcher_of,
    open_files,
    trace_network,
    with_data,
)
from ..alignment import Alignment
from ..architecture import Architecture
from ..checkpoints import Checkpoint
from ..config import plain
from ..errors import CheckpointError, UntoldNeuronsWarning
from ..merging import METHODS, Inputs, Merged, open_inputs, save_merged
from ..merging import merge as merge_networks
from ..runs import write_metrics
from ._merge_files import Beside, folders_of, written_beside
from ._merge_options import check_needs, checked, patterns_taken
from ._naming import as_stored


def merge(cfg: Any) -> None:
    """Merge ``cfg.models`` and write the result to ``cfg.out``, with all that is needed to use it
    and to make it again.

    Args:
        cfg: the composed ``conf/merge.yaml``.

    Raises:
        MetanetError: ``out`` is not empty, something does not exist or is missing, or the
            checkpoints do not belong together.
    """
    started = time.perf_counter()
    options = checked(plain(cfg))
    device = find_device(options["device"])
    inputs, network = _opened(options)
    merged, architecture = _merged(options, inputs, network, device)
    named, others = _by_names_of_files(merged, inputs, network)
    beside = written_beside(options, named, merged, inputs, others)
    spoken = [*(() if architecture is None else architecture.warnings), *beside.warnings]
    for warning in spoken:
        print(f"warning: {warning}", flush=True)
    _write(options, named, merged, beside)
    numbers = _numbers(merged, named) | {"seconds": time.perf_counter() - started}
    run_dir = Path(options["paths"]["run_dir"])
    write_metrics(run_dir, numbers)
    if options.get("matcher") is not None:
        for number, alignment in enumerate(merged.alignments):
            if alignment is not None:
                alignment.save(run_dir / f"alignment-{number}.safetensors")
    print(_summary(Path(options["out"]), merged, numbers))


# ---------------------------------------------------------------- what is merged


def _opened(options: Mapping[str, Any]) -> tuple[Inputs, Network | None]:
    """The checkpoints by one set of names, and the network with its data if ``arch`` names one."""
    stored_base = None if options["base"] is None else open_files([options["base"]])[0]
    stored = open_files(options["models"])
    takes = patterns_taken(options["overrides"])
    check_needs(options)
    if options["arch"] is None:
        check_without_network(options)
        return open_inputs(stored, stored_base, takes=takes), None
    model = make_model(options, stored[0])
    inputs = open_inputs(stored, stored_base, model, takes=takes)
    return inputs, with_data(model, options)


def _merged(
    options: Mapping[str, Any], inputs: Inputs, network: Network | None, device: torch.device
) -> tuple[Merged, Architecture | None]:
    """The result, lazily, and the architecture where something needed it."""
    settings = dict(options["method"])
    method = settings.pop("name")
    how = _alignment(options, inputs)
    architecture = None
    if network is not None and _needs_architecture(options):
        architecture = trace_network(network, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntoldNeuronsWarning)  # the summary says it
        merged = merge_networks(
            inputs,
            method,
            arch=architecture,
            model=None if network is None else network.model,
            data=None if network is None else network.data,
            loss=loss_of(options["loss"]),
            repair=options["repair"],
            repair_passes=options["repair_passes"],
            overrides=options["overrides"],
            slices=options["slices"],
            dtype=options["dtype"],
            out_dtype=options["out_dtype"],
            overflow=options["overflow"],
            seed=options["seed"],
            device=device,
            progress=True,
            **how,
            **settings,
        )
    return merged, architecture


def _needs_architecture(options: Mapping[str, Any]) -> bool:
    method = METHODS.find(options["method"]["name"])
    return options.get("matcher") is not None or "arch" in method.needs


def _alignment(options: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """What :func:`metanet.merge` is told of the alignment."""
    ref = options["alignment"]
    if ref is not None:
        has_network = options["arch"] is not None
        listed = ref if isinstance(ref, list) else [ref]
        loaded = [_loaded(path, inputs.like, has_network) for path in listed]
        return {"align": loaded if isinstance(ref, list) else loaded[0]}
    if options.get("matcher") is None:
        return {}
    matcher, settings = matcher_of(options)
    return {"align": matcher, "align_options": settings}


def _loaded(ref: str | None, like: Checkpoint, has_network: bool) -> Alignment | None:
    """An alignment that was saved; ``None`` for a model that stays.

    Raises:
        MetanetError: it can't be read, or is of another network.
    """
    if ref is None:
        return None
    alignment = load_alignment(ref)
    try:
        alignment.check(like)
    except CheckpointError as error:
        hint = "; give arch= where the files name the tensors otherwise than the network"
        raise CheckpointError(f"alignment={ref}: {error}{'' if has_network else hint}") from error
    return alignment


# ---------------------------------------------------------------- what is written


def _by_names_of_files(
    merged: Merged, inputs: Inputs, network: Network | None
) -> tuple[Checkpoint, list[str]]:
    """The result by the names of the base's file, or of the first model's, and the names that are
    none of the network's."""
    if network is None:
        return merged, []
    stored = inputs.stored[0] if inputs.stored_base is None else inputs.stored_base
    return as_stored(merged, inputs.like, stored, network.model)


def _write(options: Mapping[str, Any], named: Checkpoint, merged: Merged, beside: Beside) -> None:
    """The folder: the weights, and what belongs to them."""
    recipe = {
        **merged.recipe,
        "models": options["models"],
        "base": options["base"],
        **_determined_by(options, merged.alignments),
    }
    save_merged(
        Path(options["out"]),
        named,
        recipe=recipe,
        max_shard_size=options["max_shard_size"],
        progress=True,
        parts=folders_of([*beside.parts, *beside.files]),
        files=lambda hashes: beside.with_card(options, merged, recipe, hashes),
    )


def _determined_by(
    options: Mapping[str, Any], alignments: Sequence[Alignment | None]
) -> dict[str, Any]:
    """What the result depends on besides the recipe, so that other shards are never taken for those
    of this merge."""
    digests = [None if alignment is None else _digests(alignment) for alignment in alignments]
    keys = ("arch", "arch_args", "data", "data_args", "loss")
    return {"relabellings": digests, **{key: options[key] for key in keys}}


def _digests(alignment: Alignment) -> dict[str, str]:
    elements = alignment.transform.elements
    return {group: _digest(element) for group, element in elements.items()}


def _digest(element: Tensor) -> str:
    return hashlib.sha256(element.contiguous().numpy().data).hexdigest()


def _numbers(merged: Merged, named: Checkpoint) -> dict[str, Any]:
    """What the run measured."""
    sizes = {name: shape.numel() for name, shape in named.shapes.items()}
    numbers: dict[str, Any] = {
        "tensors": len(sizes),
        "values": sum(sizes.values()),
        "bytes": sum(count * named.dtypes[name].itemsize for name, count in sizes.items()),
        **merged.report,
    }
    for number, alignment in enumerate(merged.alignments):
        if alignment is not None:
            numbers[f"objective/{number}/before"] = alignment.objective[0]
            numbers[f"objective/{number}/after"] = alignment.objective[-1]
    return numbers


def _summary(out: Path, merged: Merged, numbers: Mapping[str, Any]) -> str:
    moved = {number: each for number, each in enumerate(merged.alignments) if each is not None}
    lines = [f"model {number}: {alignment}" for number, alignment in moved.items()]
    lines += [f"{name}: {value}" for name, value in merged.report.items()]
    lines.append(
        f"{numbers['tensors']:,} tensors, {numbers['values']:,} values, {numbers['bytes']:,} bytes "
        f"in {numbers['seconds']:.1f} s: {out}"
    )
    return "\n".join(lines)
