"""What a run leaves in its directory, and whether anybody may hear of it online."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import MetanetError

METRICS_FILE = "metrics.json"
"""What a run measured, ``{"name": number, ...}``, perhaps nested; the table of a sweep shows it."""

ERROR_FILE = "error.txt"
"""Of a run that failed: the message, then the traceback."""


def write_metrics(run_dir: Path, numbers: Mapping[str, Any]) -> None:
    """Write :data:`METRICS_FILE` into the directory of a run, whole or not at all.

    Args:
        run_dir: the directory, which exists.
        numbers: by name; NaN and infinities are results too.

    Raises:
        MetanetError: the disk is full, or the place can't be written.
    """
    from .checkpoints import atomic_write  # here, since it imports torch

    with atomic_write(run_dir / METRICS_FILE) as temporary:
        temporary.write_text(json.dumps(numbers, indent=1))


def check_login(settings: Mapping[str, Any]) -> None:
    """Refuse to send runs to Weights & Biases where nobody is logged in.

    Args:
        settings: the configuration ``logger``.

    Raises:
        MetanetError: ``logger.mode=online`` without a login.
    """
    if settings.get("mode") != "online" or os.environ.get("WANDB_API_KEY"):
        return
    import wandb

    if not wandb.api.api_key:
        raise MetanetError(
            "logger.mode=online needs a W&B login: run `wandb login`, or keep the default, offline"
        )
