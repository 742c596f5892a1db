"""Weights & Biases for commands that measure rather than train; offline unless ``WANDB_MODE`` says
otherwise."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def log_curve(
    options: Mapping[str, Any],
    folder: Path,
    columns: Mapping[str, Sequence[float]],
    numbers: Mapping[str, Any],
    picture: Path,
) -> None:
    """One run: a step for every row of the columns, the numbers as its summary, and the picture."""
    settings = options["logger"]
    if settings["name"] != "wandb" or settings["mode"] == "disabled":
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    run = wandb.init(
        project=settings["project"],
        mode=settings["mode"],
        dir=folder,
        name=folder.name,
        config=dict(options),
    )
    for row in zip(*columns.values(), strict=True):
        run.log(dict(zip(columns, row, strict=True)))
    run.log({"barrier": wandb.Image(str(picture))})
    run.summary.update(dict(numbers))
    run.finish()
