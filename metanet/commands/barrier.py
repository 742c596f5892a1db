"""The command ``barrier``: loss and accuracy on the way from one checkpoint to another."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._cli.log import check_login, log_curve
from .._cli.networks import (
    Pair,
    find_device,
    load_alignment,
    loss_of,
    matcher_of,
    open_pair,
    trace_networks,
)
from .._cli.sweep import METRICS_FILE
from ..checkpoints import atomic_write
from ..config import plain
from ..errors import MetanetError, UntoldNeuronsWarning
from ..landscape import barrier as measure_barrier


def barrier(cfg: Any) -> None:
    """Measure the straight path from ``cfg.a`` to ``cfg.b``, as they are and aligned, and leave
    table and picture.

    Args:
        cfg: the composed ``conf/barrier.yaml``.

    Raises:
        MetanetError: something does not exist, or does not belong together.
    """
    options = plain(cfg)
    check_login(options["logger"])
    device = find_device(options["device"])
    if options["data"] is None:
        raise MetanetError("no value for data: give data=VALUE")
    if options.get("matcher") is not None and options["alignment"] is not None:
        raise MetanetError(
            "give either matcher=NAME, which finds an alignment, or alignment=FILE, which has one"
        )
    pair = open_pair(options)
    print(f"network {options['arch']}, {_described(pair)}")
    how = _alignment(options, pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntoldNeuronsWarning)  # the alignment's own text says it
        curve = measure_barrier(
            pair.a, pair.b, model=pair.model, data=pair.data, train_data=pair.train_data,
            loss=loss_of(options["loss"]), points=options["points"], statistics=options["statistics"],
            metrics=options["metrics"], seed=options["seed"], device=device, progress=True, **how,
        )  # fmt: skip
    folder = Path(options["paths"]["run_dir"])
    curve.to_csv(folder / "barrier.csv")
    curve.plot(folder / "barrier.png")
    numbers = curve.summary()
    with atomic_write(folder / METRICS_FILE) as temporary:
        Path(temporary).write_text(json.dumps(numbers, indent=1))
    log_curve(options, folder, curve.columns(), numbers, folder / "barrier.png")
    if curve.alignment is not None:
        print(curve.alignment)
    print(f"{curve}\n\nrun directory: {folder}")


def _alignment(options: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
    """What :func:`metanet.barrier` is told of the alignment."""
    if options["alignment"] is not None:
        return {"align": load_alignment(options["alignment"])}
    if options.get("matcher") is None:
        return {}
    method, chosen = matcher_of(options)
    arch = trace_networks(pair, options["arch"], options["input_shape"], options["seed"])
    for warning in arch.warnings:
        print(f"warning: {warning}")
    return {"align": method, "arch": arch, **chosen}


def _described(pair: Pair) -> str:
    batches = f"{len(pair.data)} batches" if hasattr(pair.data, "__len__") else "batches"
    samples = f" of {pair.data.samples} samples" if hasattr(pair.data, "samples") else ""
    return f"{sum(p.numel() for p in pair.model.parameters()):,} parameters, {batches}{samples}"
