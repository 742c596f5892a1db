"""Errors as messages: what a person can mend is explained without a traceback."""

import errno
from pathlib import Path

from ..errors import MetanetError

_RIGHTS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def is_expected(error: Exception) -> bool:
    """Whether an error is no bug: bad input, a full disk, missing rights."""
    return isinstance(error, MetanetError) or _is_of_the_surroundings(error)


def message(error: Exception, run_dir: Path) -> str | None:
    """The text for an error that is no bug; ``None`` for programming errors, which keep their
    traceback.

    Args:
        error: what a command ended with.
        run_dir: where it wrote, for errors of the system that name no file.
    """
    from hydra.errors import CompactHydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OSError) and _is_of_the_surroundings(error):
        return _of_the_surroundings(error, run_dir)
    if is_expected(error):
        return str(error)
    if not isinstance(error, CompactHydraException):
        return None
    cause = error.__cause__
    details = [str(error), *([str(cause)] if isinstance(cause, OmegaConfBaseException) else [])]
    text = "\n".join(dict.fromkeys(filter(None, details)))
    return text.partition("\nConfig search path:")[0]


def _is_of_the_surroundings(error: Exception) -> bool:
    """Full disks and missing rights are the surroundings' fault, wherever they strike."""
    if not isinstance(error, OSError):
        return False
    from ..checkpoints import is_full  # here, since it imports torch

    return is_full(error) or error.errno in _RIGHTS


def _of_the_surroundings(error: OSError, run_dir: Path) -> str:
    """Always with a path: where the system doesn't say which file it was, the run directory."""
    from ..checkpoints import is_full, unwritable

    path = Path(error.filename or run_dir).absolute()
    if is_full(error):
        return str(unwritable(path, error))
    return f"{path}: {error.strerror}. Choose another folder, or change its rights."
