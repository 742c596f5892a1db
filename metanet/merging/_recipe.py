"""The recipe of a merge: all that says how it was made, as JSON."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from ..alignment import Alignment
from ._inputs import Inputs
from ._options import Options
from ._registry import Method


def recipe_of(
    method: Method,
    options: Options,
    inputs: Inputs,
    alignments: Sequence[Alignment | None],
    repair_passes: int | None,
) -> dict[str, Any]:
    """What was merged and how.

    Args:
        alignments: of the models, ``None`` for those that stayed.
        repair_passes: how often the data was read for the repair.
    """
    recipe = {
        "method": method.name,
        "options": {**method.options, **options.options},
        "overrides": options.overrides or {},
        "models": list(inputs.called),
        "base": inputs.called_base,
        "alignments": [_aligned(alignment) for alignment in alignments],
        "repair": options.repair,
        "repair_passes": repair_passes,
        "slices": options.slices,
        "dtype": options.computed_in,
        "out_dtype": options.stored_in,
        "overflow": options.overflow,
        "seed": options.seed,
        "version": version("metanet"),
    }
    plain: dict[str, Any] = json.loads(json.dumps(recipe, default=_plain))
    return plain


def _aligned(alignment: Alignment | None) -> dict[str, Any] | None:
    if alignment is None:
        return None
    return {
        "method": alignment.method,
        "options": dict(alignment.options),
        "seed": alignment.seed,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return dict(value) if isinstance(value, Mapping) else list(value)
