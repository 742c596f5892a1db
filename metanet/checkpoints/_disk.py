"""What disks and file systems refuse, and how that is told."""

import errno
import os
import shutil
from pathlib import Path

from ..errors import MetanetError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: OSError) -> bool:
    """Whether the disk, a quota or a limit is behind an error."""
    return error.errno in _FULL


def unwritable(target: Path, error: OSError, size: int | None = None) -> MetanetError:
    """One message for what the surroundings refuse: the path, why, and what to do.

    Args:
        target: what was to be written.
        error: what the system said.
        size: the bytes it takes, when known.
    """
    why = error.strerror or str(error)
    if not is_full(error):
        advice = (
            " Choose another folder."
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
            else ""
        )
        return MetanetError(f"can't write {target}: {why}.{advice}")
    needed = "" if size is None else f" {size:,} bytes needed,"
    limit = " Files may be no larger here (see ulimit -f)." if error.errno == errno.EFBIG else ""
    return MetanetError(
        f"can't write {target}: {why};{needed} {_free(target.parent)} bytes free.{limit} "
        f"What was there before is kept; make room or choose another folder."
    )


def _free(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f"{shutil.disk_usage(folder).free:,}"
    except OSError:
        return "an unknown number of"


def sync(path: Path) -> None:
    """fsync a file, or a folder where the system can (not on Windows)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems can't sync a folder; the rename itself is done.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
