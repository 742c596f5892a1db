"""Who is writing here: locks that go with the process that holds them, killed or not.

Two kinds of things are locked, both by ``flock``: a hidden file beside an output, which says who is
at work (:func:`hold`), and every temporary file or folder itself, so that the next writer can tell
those of a dead process, which it removes, from those of a living one.

``flock`` works between processes of one machine on every local file system, and on NFS between
machines where the server keeps locks. Where a file system has none, nothing is locked: two writers
then waste work, but every file still appears as a whole, and leftovers stay. So they do on Windows.
"""

import contextlib
import errno
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..documents import Document, parse_json, validated
from ..errors import MetanetError
from ._disk import unwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL}
_LARGEST = 16 * 2**10  # bytes of what a holder says of itself
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(
    os, "O_NONBLOCK", 0
)  # neither links nor waiting for a pipe's end

_held: dict[
    tuple[str, int], int
] = {}  # lock file and thread -> how often, as a threading.RLock counts


class Holder(Document):
    """What a lock file says of who holds it."""

    pid: int
    host: str
    since: str
    command: str

    def __str__(self) -> str:
        command = self.command if len(self.command) <= 300 else f"{self.command[:300]}..."
        return f"{command} (process {self.pid} on {self.host}, since {self.since})"


@contextlib.contextmanager
def hold(target: str | os.PathLike, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes to ``target``, which need not exist.

    The lock is ``.NAME.lock`` beside it. It is gone at the end of the block, void when its process
    ends in whatever way, and may be taken again by the thread that has it.

    Args:
        target: a file or folder.
        wait: until it is free, saying so once; else refuse at once.

    Raises:
        MetanetError: another process holds it: says which, where, since when; or nothing can be
            written there.

    Example:
        >>> with hold("out"):  # doctest: +SKIP
        ...     os.mkdir("out")
    """
    place = Path(os.path.realpath(target))
    path = place.with_name(f".{place.name}.lock")
    key = (str(path), threading.get_ident())
    if key in _held:
        _held[key] += 1
        try:
            yield
        finally:
            _held[key] -= 1
        return
    missing = [folder for folder in path.parents if not folder.exists()]
    handle = _acquire(place, path, wait)
    _held[key] = 1
    try:
        yield
    finally:
        del _held[key]
        with contextlib.suppress(OSError):
            path.unlink()  # still held: whoever opened it meanwhile finds that it has no name any more
            for folder in missing:
                folder.rmdir()  # unless something was written there
        os.close(handle)


def _acquire(target: Path, path: Path, wait: bool) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o666)
        except OSError as error:
            raise unwritable(target, error) from error
        if not _lock(handle):
            other = _holder(handle)
            if not wait:
                os.close(handle)
                raise MetanetError(
                    f"{target} is being written by another process: {other}. "
                    f"Wait until that has ended, or choose another place."
                )
            _log.warning(
                "%s is being written by another process: %s; waiting for it", target, other
            )
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(handle, path):
            _introduce(handle)
            return handle
        os.close(handle)


def _introduce(handle: int) -> None:
    me = Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        command=shlex.join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])[:1000],
    )
    # on a full disk the lock holds all the same, it only can't say whose it is
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(dict(me)).encode("utf-8", "replace"), 0)


def _holder(handle: int) -> str:
    try:
        content = os.pread(handle, _LARGEST, 0)
        return str(validated(Holder, parse_json(content, "the lock"), "the lock"))
    except (OSError, MetanetError):
        return "it has not said which"


def private(target: Path, folder: bool = False) -> tuple[Path, int | None]:
    """A new temporary file or folder beside ``target``, and the handle that locks it until
    :func:`unlock`.

    Its name ends in that of ``target``, so that writers which look at the suffix work.
    """
    while True:
        path = target.with_name(f".{uuid.uuid4().hex[:8]}.partial.{target.name}")
        if folder:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        handle, ours = lock(path)
        if ours:  # unless another process took it for a leftover before it was locked
            return path, handle


def lock(path: Path) -> tuple[int | None, bool]:
    """Wait until a file or folder is ours: its handle, and whether it still has its name by
    then."""
    if fcntl is None:
        return None, path.exists()
    try:
        handle = os.open(path, os.O_RDONLY | _NO_FOLLOW)
    except (OSError, ValueError):  # there is none, or no name
        return None, False
    _lock(handle, wait=True)
    if _is_at(handle, path):
        return handle, True
    os.close(handle)
    return None, False


def unlock(handle: int | None) -> None:
    """Give back what :func:`lock` gave."""
    if handle is not None:
        os.close(handle)


def remove_leftovers(target: Path, kind: str = r"[0-9a-f]{8}\.partial\.{name}") -> None:
    """Remove what killed processes left beside ``target`` when they wrote it.

    What is being written stays.

    Args:
        target: the file or folder.
        kind: the form of the hidden names after their dot, a regular expression.
    """
    pattern = re.compile(rf"\.{kind.replace('{name}', re.escape(target.name))}")
    with contextlib.suppress(OSError):
        names = os.listdir(target.parent)
        for name in filter(pattern.fullmatch, names):
            _remove_abandoned(target.with_name(name))


def _remove_abandoned(path: Path) -> None:
    folder = path.is_dir() and not path.is_symlink()
    try:
        handle = os.open(path, (os.O_RDONLY if folder else os.O_RDWR) | _NO_FOLLOW)
    except OSError:  # gone meanwhile, or somebody else's
        return
    try:
        if fcntl is None or not _lock(handle, unknown=False) or not _is_at(handle, path):
            return
        if folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool = False, unknown: bool = True) -> bool:
    """Lock an open file; False if another has it, ``unknown`` where the file system can't lock."""
    if fcntl is None:
        return unknown
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return unknown
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        there = os.lstat(path)
    except OSError:
        return False
    return os.path.samestat(os.fstat(handle), there)
