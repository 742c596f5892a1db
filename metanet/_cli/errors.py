"""Errors as messages: what a person can mend is explained without a traceback."""

import errno
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..checkpoints import is_full, unwritable
from ..errors import MetanetError
from . import directories

# Full disks and missing rights are the surroundings' fault, wherever they strike.
_RIGHTS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def message(error: Exception, config_name: str, overrides: Sequence[str]) -> str | None:
    """The text for an error that is no bug: bad input, a configuration that can't be composed, a full disk.

    Args:
        error: what was raised.
        config_name: the primary config, whose keys an unknown one is compared with.
        overrides: the prepared command line.

    Returns:
        None for programming errors, which keep their traceback.
    """
    from hydra.errors import CompactHydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MetanetError):
        return str(error)
    if isinstance(error, OSError) and (is_full(error) or error.errno in _RIGHTS):
        return _of_the_surroundings(error)
    if not isinstance(error, CompactHydraException):
        return None
    if key := _unknown(error):
        return _unknown_keys(key, config_name, overrides)
    cause = error.__cause__
    details = [str(error), *([str(cause)] if isinstance(cause, OmegaConfBaseException) else [])]
    text = "\n".join(dict.fromkeys(filter(None, details)))
    return text.partition("\nConfig search path:")[0]


def _of_the_surroundings(error: OSError) -> str:
    """Always with a path: where the system doesn't say which file it was, the run directory."""
    path = Path(error.filename or directories.run_dir).absolute()
    if is_full(error):
        return str(unwritable(path, error))
    return f"{path}: {error.strerror}. Choose another folder, or change its rights."


def _unknown(error: Exception) -> str | None:
    found = re.search(r"Could not override '([^']+)'", str(error))
    return found and found[1]


def _unknown_keys(key: str, config_name: str, overrides: Sequence[str]) -> str:
    """Every key on the command line that the configuration hasn't, with what it has at that place."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from ..config import conf_dir

    unknown: dict[str, str] = {}  # key -> the override that has it
    kept = list(overrides)

    def drop(key: str | None) -> bool:
        wrong = [each for each in kept if each.partition("=")[0].lstrip("+~") == key]
        unknown.update((str(key), each) for each in wrong)
        kept[:] = [each for each in kept if each not in wrong]
        return bool(wrong)

    drop(key)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        while True:
            try:
                cfg = compose(config_name, kept, return_hydra_config=True)
                break
            except HydraException as error:
                if not drop(_unknown(error)):  # another mistake: compare with the configuration without overrides
                    cfg = compose(config_name, return_hydra_config=True)
                    break
    return "\n".join(_explained(key, given, cfg) for key, given in unknown.items())


def _explained(key: str, given: str, cfg: Any) -> str:
    parent, allowed = _allowed(cfg, key)
    lines = [f"unknown key {key!r} in {given}"]
    lines.append(f"  {parent or 'the top level'} has: {', '.join(allowed) or 'no keys'}")
    if close := get_close_matches(key.removeprefix(f"{parent}."), allowed, n=1):
        lines.append(f"  did you mean {parent + '.' if parent else ''}{close[0]}?")
    lines.append(f"  a new key is added with a plus: +{given}")
    return "\n".join(lines)


def _allowed(cfg: Any, key: str) -> tuple[str, list[str]]:
    """The deepest part of ``key`` that exists, and the keys it has; at the top the groups as well."""
    from omegaconf import DictConfig, OmegaConf

    *parents, _ = key.replace("/", ".").split(".")
    for depth in range(len(parents), 0, -1):
        parent = ".".join(parents[:depth])
        node = OmegaConf.select(cfg, parent, throw_on_resolution_failure=False, throw_on_missing=False)
        if isinstance(node, DictConfig):
            return parent, sorted(map(str, node))
    groups = [group for group in cfg.hydra.runtime.choices if "/" not in group]
    return "", sorted({*map(str, cfg), *groups})
