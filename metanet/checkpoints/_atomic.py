"""Writing a file so that it is either there as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ._disk import is_full, sync, unwritable
from ._locks import private, remove_leftovers, unlock
from ._together import finish_saving


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well.

    It lies beside ``path``.

    Nobody ever sees half a file: the bytes are on the disk (fsync) before the name is (rename), an
    old ``path`` stays until then, and an exception in the block removes the temporary file. Missing
    folders are made. The temporary name ends in that of ``path``, so that writers which look at the
    suffix work; a symbolic link is written through.

    A process that is killed leaves its temporary file, and the next one that writes ``path``
    removes it. The block must write into the file that is there, not put another in its place: its
    lock tells that somebody is at work.

    Args:
        path: the file to write.
        size: the bytes it will take, when known, for the message about a full disk.

    Raises:
        MetanetError: the disk (or a quota) is full, or the place can't be written; ``path`` is as
            it was.

    Example:
        >>> with atomic_write("table.csv") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("name,accuracy")
    """
    target = Path(os.path.realpath(path))
    with _explained(target, size):
        target.parent.mkdir(parents=True, exist_ok=True)
        finish_saving(
            target
        )  # or what a killed process had saved before would take the place of this one later
        remove_leftovers(target)
        temporary, handle = private(target)
    try:
        # what the umask gives; some writers replace the file by a private one
        mode = temporary.stat().st_mode
        try:
            yield temporary
        except OSError as error:
            if not is_full(error):
                raise
            temporary.unlink(missing_ok=True)  # so that what it took counts as free
            raise unwritable(target, error, size) from error
        with _explained(target, size):
            temporary.chmod(mode)
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        unlock(handle)


@contextlib.contextmanager
def _explained(target: Path, size: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(target, error, size) from error
