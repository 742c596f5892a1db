"""Files that are either whole or not there: atomic writes, checksums, a lock between processes."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..checkpoints import hold, is_full, unwritable
from ._errors import ZooError

TEMPORARY = ".tmp"


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """Where zoos lie: ``root`` if given, else ``$METANET_DATA``, else ``data`` under the current
    folder."""
    return Path(root or os.environ.get("METANET_DATA") or "data").expanduser()


def sha256(data: bytes) -> str:
    """The checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write beside ``path``, then rename: whoever dies when, ``path`` holds the old content, the
    new, or nothing.

    Raises ``ZooError`` when the disk is full, having removed what it had written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before the content does
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if not is_full(error):
            raise ZooError(f"{unwritable(path, error)} Or set METANET_DATA to another.") from error
        raise ZooError(
            f"the disk is full: {len(data):,} bytes were needed for {path.name} in {path.parent}, "
            f"{_free_bytes(path.parent)} are free. The files finished before it are kept: free "
            "some space there and run the same command again to go on, or set METANET_DATA to a "
            "folder on another disk to begin there."
        ) from error


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # some file systems cannot; the rename is atomic all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _free_bytes(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,}"
    except OSError:
        return "an unknown number"


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left. Only for the holder of the folder's lock."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes into ``folder``; wait, saying so, while another one is."""
    with hold(folder, wait=True):
        yield
