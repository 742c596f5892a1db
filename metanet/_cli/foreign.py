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
# groups of settings that are nothing but values
_VALUES = frozenset({"model", "optim", "task", "zoo"})
_TRAINER = frozenset(
    {
        "deterministic",
        "enable_model_summary",
        "enable_progress_bar",
        "gradient_clip_val",
        "log_every_n_steps",
        "max_epochs",
        "precision",
    }
)
_TOP = frozenset({"device", "seed"})
# the last part of a key whose value is a path, or names code
_PATHS = frozenset({"name", "reference", "root", "source"} | TEXT_KEYS) - {"label"}


def doubtful(overrides: Iterable[str]) -> list[str]:
    """Those that are more than plain values.

    >>> doubtful(["seed=3", "model=gmn", "zoo.arch=os:system", "+trainer.callbacks=[]"])
    ['zoo.arch=os:system', '+trainer.callbacks=[]']
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
    changes_tree = parsed.is_add() or parsed.is_force_add() or parsed.is_delete()
    if changes_tree or parsed.package is not None or parsed.is_sweep_override():
        return False
    key = parsed.key_or_group
    value = parsed.value()
    is_group = re.fullmatch(r"\w+", key) is not None and (conf_dir() / key).is_dir()
    if is_group:
        return value is None or _matches(_NAME, value)
    return _may_be_set(key) and _is_value(value)


def _may_be_set(key: str) -> bool:
    """Whether a key is one of those whose plain value does no more than set it."""
    group, *path = key.split(".")
    if not path:
        return group in _TOP
    if group == "trainer":
        return len(path) == 1 and path[0] in _TRAINER
    is_for_hydra = any(part.startswith("_") for part in path)  # _target_, _args_
    return group in _VALUES and path[-1] not in _PATHS and not is_for_hydra


def _is_value(value: Any) -> bool:
    """Numbers, words, and lists and dictionaries of them; no keys of Hydra's."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, dict):
        return all(map(_is_plain_key, value)) and all(map(_is_value, value.values()))
    if isinstance(value, list):
        return all(map(_is_value, value))
    if isinstance(value, QuotedString):
        return _matches(_WORD, value.text)
    return isinstance(value, bool | int | float | None) or _matches(_WORD, value)


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, str) and not key.startswith("_") and key not in _PATHS


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
