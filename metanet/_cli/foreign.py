"""Overrides that stand in a file: which of them are plain values, and which need the user's word.

``resume=DIR`` reads ``DIR/.hydra/overrides.yaml``. A run made here is remembered, and all of its
overrides are taken. Of a stranger's run, or of one that was changed or moved, these are:

- groups by a plain name: ``model=gmn``;
- numbers, true, false, null and plain words for the settings of the groups:
  ``optim.optimizer.lr=0.5``.

Everything else reaches further than a value does: ``zoo.arch=os:system`` and ``_target_`` name
code, ``zoo.path=`` and ``trainer.default_root_dir=`` lead elsewhere, ``${oc.env:SECRET}`` reads the
environment, and ``hydra.*`` decides what Hydra itself runs (callbacks, launchers), where it looks
for configurations (searchpath) and what it writes (job_logging, run.dir).
"""

import re
from collections.abc import Iterable
from typing import Any

from ..config import conf_dir
from .keys import TEXT_KEYS

_NAME = re.compile(r"[\w-]+")  # of a file in a group
_WORD = re.compile(r"[\w.+-]*")
_VALUES = frozenset(
    {"model", "optim", "task", "zoo"}
)  # groups of settings that are nothing but values
_TRAINER = frozenset(
    {
        "deterministic",
        "enable_model_summary",
        "enable_progress_bar",
        "gradient_clip_val",
        "log_every_n_steps",
    }
    | {"max_epochs", "precision"}
)
_TOP = frozenset({"device", "seed"})
_PATHS = frozenset({"name", "reference", "root", "source"} | TEXT_KEYS) - {
    "label"
}  # the last part of a key


def doubtful(overrides: Iterable[str]) -> list[str]:
    """Those that are more than plain values.

    >>> doubtful(["seed=3", "model=gmn", "zoo.arch=os:system", "+trainer.callbacks=[]", "hydra.searchpath=[x]"])
    ['zoo.arch=os:system', '+trainer.callbacks=[]', 'hydra.searchpath=[x]']
    """
    return [override for override in overrides if not _is_plain(override)]


def _is_plain(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "${" in override:
        return False
    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):
        return False
    if parsed.is_add() or parsed.is_force_add() or parsed.is_delete() or parsed.package is not None:
        return False
    if parsed.is_sweep_override():
        return False
    key, value = parsed.key_or_group, parsed.value()
    if re.fullmatch(r"\w+", key) and (conf_dir() / key).is_dir():
        return value is None or (isinstance(value, str) and _NAME.fullmatch(value) is not None)
    return _may_be_set(key) and _is_value(value)


def _may_be_set(key: str) -> bool:
    first, *rest = key.split(".")
    if not rest:
        return first in _TOP
    if first == "trainer":
        return len(rest) == 1 and rest[0] in _TRAINER
    # what begins with _ is for Hydra: _target_, _args_
    return (
        first in _VALUES
        and rest[-1] not in _PATHS
        and not any(part.startswith("_") for part in rest)
    )


def _is_value(value: Any) -> bool:
    """Numbers, words, and lists and dictionaries of them; no keys of Hydra's."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, dict):
        words = all(isinstance(key, str) and not key.startswith("_") for key in value)
        return words and not _PATHS & value.keys() and all(map(_is_value, value.values()))
    if isinstance(value, list):
        return all(map(_is_value, value))
    if isinstance(value, QuotedString):
        value = value.text
    return value is None or isinstance(value, bool | int | float) or _is_word(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None
