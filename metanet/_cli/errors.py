"""Errors as messages: what a person can mend is explained without a traceback."""

import errno

from ..errors import MetanetError

# Full disks and missing rights are the surroundings' fault, wherever they strike.
_SURROUNDINGS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


def is_expected(error: Exception) -> bool:
    """Whether an error is no bug: bad input, a full disk, missing rights."""
    return isinstance(error, MetanetError) or (isinstance(error, OSError) and error.errno in _SURROUNDINGS)


def message(error: Exception) -> str | None:
    """The text for an error that is no bug; ``None`` for programming errors, which keep their traceback."""
    from hydra.errors import CompactHydraException
    from omegaconf.errors import OmegaConfBaseException

    if is_expected(error):
        return str(error)
    if not isinstance(error, CompactHydraException):
        return None
    cause = error.__cause__
    details = [str(error), *([str(cause)] if isinstance(cause, OmegaConfBaseException) else [])]
    text = "\n".join(dict.fromkeys(filter(None, details)))
    return text.partition("\nConfig search path:")[0]
