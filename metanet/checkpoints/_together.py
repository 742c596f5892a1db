"""Several files that take the place of old ones as one: never a mix, and never neither.

The new files are written to a hidden folder. Renaming it is the moment at which they count; then
they move to their places, and what they replace goes. Whoever is killed before the rename leaves
the old ones, and whoever is killed after it leaves a folder that the next reader or writer
finishes::

    .3f09ab12.partial.model/ {a, b}     being written: nobody looks at it
    .model.complete/         {a, b}     the new ones count; the next one to come by moves them
    a, b                                done
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..documents import read_json, validated
from ..errors import MetanetError
from ._disk import is_full, sync, unwritable
from ._locks import lock, private, remove_leftovers, unlock

_REMOVED = ".removed.json"  # in the hidden folder: names of what goes

Error = TypeVar("Error", bound=MetanetError)


@contextlib.contextmanager
def write_together(
    folder: str | os.PathLike,
    name: str,
    outdated: Callable[[], Iterable[str]] = tuple,
    size: int | None = None,
) -> Iterator[Path]:
    """Yield a hidden folder whose files become ``folder``'s when the block ends well.

    They do so all at once.

    Other files of ``folder``, which is made if need be, stay as they are.

    Args:
        folder: where the files go.
        name: what they are called together; one name has one owner in a folder.
        outdated: tells the names of files in ``folder`` that go when the new ones come; asked at
            the end.
        size: the bytes they will take, when known, for the message about a full disk.

    Raises:
        MetanetError: the disk is full, or the place can't be written; all is as it was.

    Example:
        >>> with write_together("model", "model") as beside:  # doctest: +SKIP
        ...     (beside / "weights.bin").write_bytes(b"...")
        ...     (beside / "config.json").write_text("{}")
    """
    place = Path(os.path.realpath(folder))
    try:
        place.mkdir(parents=True, exist_ok=True)
        settle(place, name)
        remove_leftovers(place / name)
        beside, handle = private(place / name, folder=True)
    except OSError as error:
        raise unwritable(place, error, size) from error
    try:
        try:
            yield beside
            _commit(place, name, beside, outdated)
        finally:
            unlock(handle)  # whoever moves the files takes it
        sync(place)
        settle(place, name)
    except MetanetError as error:
        raise _without(error, beside, place) from error.__cause__
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)  # so that what it took counts as free
        if not is_full(error) and str(beside) not in str(error.filename):
            raise
        raise unwritable(place / Path(str(error.filename or name)).name, error, size) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def write_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a hidden folder; it becomes ``path``, a new or empty folder, when the block ends well.

    Raises:
        MetanetError: the disk is full, or the place can't be written; there is nothing under the
            name then.

    Example:
        >>> with write_folder("out") as beside:  # doctest: +SKIP
        ...     (beside / "config.json").write_text("{}")
    """
    place = Path(os.path.realpath(path))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        beside, handle = private(place, folder=True)
    except OSError as error:
        raise unwritable(place, error) from error
    try:
        yield beside
        for old in beside.iterdir():
            sync(old)
        sync(beside)
        if place.is_dir():
            place.rmdir()  # empty, or this fails
        os.rename(beside, place)
        sync(place.parent)
    except MetanetError as error:
        raise _without(error, beside, place) from error.__cause__
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise unwritable(place, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        unlock(handle)


def finish_saving(path: Path) -> None:
    """Settle what a path may belong to: ``x.safetensors``, ``x.json`` or their index are files of
    the save ``x``.

    Args:
        path: a file, or the folder of a checkpoint.

    Raises:
        MetanetError: there is something to move, and it can't be moved.
    """
    if path.is_dir():
        settle(path, "model")
    else:
        settle(path.parent, Path(path.name.removesuffix(".index.json")).stem)


def settle(folder: Path, name: str) -> bool:
    """Finish what a killed :func:`write_together` had completed and not moved.

    Returns whether there was something.

    Raises:
        MetanetError: there is, and it can't be moved here.
    """
    waiting = _complete(folder, name)
    if not waiting.is_dir() or waiting.is_symlink():
        return False
    handle, ours = lock(waiting)
    if not ours:
        return False  # another process was faster
    try:
        _move(folder, waiting)
    except OSError as error:
        raise MetanetError(
            f"{folder}: a save was stopped after its files were complete, and they can't be moved "
            f"from {waiting.name} to their places ({error.strerror or error}). Open it where it "
            "can be written, or move them by hand."
        ) from error
    finally:
        unlock(handle)
    return True


def _commit(folder: Path, name: str, beside: Path, outdated: Callable[[], Iterable[str]]) -> None:
    for path in beside.iterdir():
        sync(path)
    while True:
        settle(folder, name)
        new = {path.name for path in beside.iterdir()}
        old = [file for file in outdated() if file not in new]
        (beside / _REMOVED).write_text(json.dumps(old))
        sync(beside / _REMOVED)
        sync(beside)
        try:
            os.rename(beside, _complete(folder, name))  # this is the moment
            break
        except OSError:
            if not _complete(
                folder, name
            ).is_dir():  # else another writer came first: finish its files
                raise


def _complete(folder: Path, name: str) -> Path:
    return folder / f".{name}.complete"


def _move(folder: Path, waiting: Path) -> None:
    """Every step may be the last of this process: all can be done again."""
    names = sorted(path.name for path in waiting.iterdir() if path.name != _REMOVED)
    # what says how to read the others comes last
    for name in sorted(names, key=lambda name: name.endswith(".json")):
        os.replace(waiting / name, folder / name)
    if (waiting / _REMOVED).exists():
        for name in validated(list[str], read_json(waiting / _REMOVED), str(waiting / _REMOVED)):
            if Path(name).name != name or name in ("", ".", ".."):
                raise MetanetError(
                    f"{waiting / _REMOVED} is damaged: {name[:60]!r} is no file's name"
                )
            (folder / name).unlink(missing_ok=True)
        (waiting / _REMOVED).unlink()
    waiting.rmdir()


def _without(error: Error, beside: Path, folder: Path) -> Error:
    """The same error about the places where files go, not about those where they are written."""
    text = str(error)
    return type(error)(text.replace(str(beside), str(folder))) if str(beside) in text else error
