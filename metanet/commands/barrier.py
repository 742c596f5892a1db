"""The command ``barrier``: loss and accuracy on the way from one checkpoint to another."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._cli.devices import find_device
from .._cli.log import log_curve
from .._cli.networks import (
    Network,
    Pair,
    load_alignment,
    loss_of,
    matcher_of,
    open_pair,
    trace_network,
)
from ..config import plain
from ..errors import MetanetError, UntoldNeuronsWarning
from ..landscape import Barrier
from ..landscape import barrier as measure_barrier
from ..runs import check_login, write_metrics


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
    curve = _measured(options)
    folder = Path(options["paths"]["run_dir"])
    picture = folder / "barrier.png"
    curve.to_csv(folder / "barrier.csv")
    curve.plot(picture)
    numbers = curve.summary()
    write_metrics(folder, numbers)
    log_curve(options, folder, curve.columns(), numbers, picture)
    if curve.alignment is not None:
        print(curve.alignment)
    print(f"{curve}\n\nrun directory: {folder}")


def _measured(options: Mapping[str, Any]) -> Barrier:
    """The path between the two networks."""
    device = find_device(options["device"])
    if options["data"] is None:
        raise MetanetError("no value for data: give data=VALUE")
    if options.get("matcher") is not None and options["alignment"] is not None:
        raise MetanetError(
            "give either matcher=NAME, which finds an alignment, or alignment=FILE, which has one"
        )
    pair = open_pair(options)
    network = pair.network
    print(f"network {options['arch']}, {_described(network)}")
    how = _alignment(options, pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntoldNeuronsWarning)  # the alignment's own text says it
        return measure_barrier(
            pair.a,
            pair.b,
            model=network.model,
            data=network.data,
            train_data=network.train_data,
            loss=loss_of(options["loss"]),
            points=options["points"],
            statistics=options["statistics"],
            metrics=options["metrics"],
            seed=options["seed"],
            device=device,
            progress=True,
            **how,
        )


def _alignment(options: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
    """What :func:`metanet.barrier` is told of the alignment."""
    if options["alignment"] is not None:
        return {"align": load_alignment(options["alignment"])}
    if options.get("matcher") is None:
        return {}
    matcher, settings = matcher_of(options)
    architecture = trace_network(pair.network, options)
    for warning in architecture.warnings:
        print(f"warning: {warning}")
    return {"align": matcher, "arch": architecture, **settings}


def _described(network: Network) -> str:
    """How large the network is, and how much data there is."""
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    batches, samples = "batches", ""
    if hasattr(network.data, "__len__"):
        batches = f"{len(network.data)} batches"
    if hasattr(network.data, "samples"):
        samples = f" of {network.data.samples} samples"
    return f"{parameters:,} parameters, {batches}{samples}"
