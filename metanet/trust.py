"""May this reference, which stands in a file, be imported? The one place that answers.

What a file says is data. Where a reference to code comes from decides what becomes of it::

    typed on the command line, or passed in Python      imported: the user named it
    in a file, and metanet's own or one of timm's, ...  imported: a closed list, see :func:`open_to_files`
    in a file, anything else                            refused, unless its folder is trusted

A folder is trusted by name, ``trust=DIR`` on the command line or :func:`trusting` in Python. What
was trusted is remembered for that folder and for exactly these references: one that is added later
is asked about again. Folders that metanet made here itself (run directories) are remembered when
they are made.

The memory is one small JSON file for each folder in ``$METANET_STATE``, else
``$XDG_STATE_HOME/metanet``, else ``~/.local/state/metanet``; delete it to forget.
"""

import contextlib
import hashlib
import inspect
import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, create_model

from .documents import Document, read_json, validated
from .errors import MetanetError

_log = logging.getLogger(__name__)

STATE_VARIABLE = "METANET_STATE"
"""The variable with the folder in which trust is remembered."""
_LISTED = 8  # references that a message shows
_LONGEST = 100  # characters of one
_MOST_ENTRIES = 200_000  # files of a folder that are looked at

_tests: list[Callable[[str], bool]] = []
_named: ContextVar[tuple[Path, ...]] = ContextVar("trusted_folders", default=())
_ANY = Path("/")  # trust=true: whatever folder the command is given

Function = TypeVar("Function", bound=Callable)


class TrustError(MetanetError):
    """A file names code, or reaches out of its folder, and nobody has vouched for it."""


class _Memory(Document):
    """What is trusted of one folder."""

    folder: str
    trusted: list[str]


# ---------------------------------------------------------------- what every file may name


def open_to_files(factory: Function) -> Function:
    """Decorator: files may name this function, ``its.module:its_name``.

    It must be safe with any plain arguments.
    """
    reference = f"{factory.__module__}:{factory.__qualname__}"
    _tests.append(lambda given: given == reference)
    return factory


def allow_references(test: Callable[[str], bool]) -> None:
    """Let files name every reference that passes ``test``.

    The test must neither import nor call what they name.
    """
    _tests.append(test)


def is_open(reference: str) -> bool:
    """Whether any file may name this reference."""
    return any(test(reference) for test in _tests)


def check_arguments(function: Callable, arguments: Mapping[str, Any], place: str) -> None:
    """Refuse keyword arguments from a file that a function does not take.

    Its signature does not have them, or does not type them so.

    Raises:
        MetanetError: lists them with their place.
    """
    try:
        hints = get_type_hints(function)
    except NameError:  # annotations that only type checkers see
        hints = {}
    takes = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in takes)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in takes
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    config = ConfigDict(
        strict=True,
        extra="allow" if open_ended else "forbid",
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )
    validated(create_model("Arguments", __config__=config, **fields), dict(arguments), place)


# ---------------------------------------------------------------- whom the user trusts


@contextlib.contextmanager
def trusting(*folders: str | os.PathLike | bool) -> Iterator[None]:
    """Trust what files in these folders name, while the context is open; it is remembered.

    Args:
        *folders: by name; ``True`` for every folder that is read meanwhile.
    """
    paths = tuple(map(_place, folders))
    token = _named.set(_named.get() + paths)
    try:
        yield
    finally:
        _named.reset(token)


def folders_named(value: Any) -> list[str | bool]:
    """The value of ``trust=`` as folders.

    >>> folders_named("."), folders_named(True), folders_named(None)
    (['.'], [True], [])

    Raises:
        MetanetError: it is neither a folder, nor a list of folders, nor true.
    """
    if value in (None, False, "", "false", "null"):
        return []
    values = list(value) if isinstance(value, list | tuple) else [value]
    folders = [True if each in (True, "true") else each for each in values]
    wrong = [
        each
        for each in folders
        if each is not True and not (isinstance(each, str) and _is_folder(each))
    ]
    if wrong:
        raise MetanetError(
            f"trust={shown(wrong[0])}: there is no such folder. Give the folder that you trust, or true"
        )
    return folders


def require(
    references: Iterable[str], folder: str | os.PathLike, what: str = "code that would run"
) -> None:
    """Refuse what files in ``folder`` name, unless the user trusts them.

    What is open to all files is not refused.

    Args:
        references: as the file gives them; shown in the message.
        folder: of the file.
        what: how the message calls them.

    Raises:
        TrustError: nobody has vouched for some of them; nothing of them was imported.
    """
    folder = Path(folder).expanduser().resolve()
    doubtful = sorted(
        {reference for reference in references if not is_open(reference)} - _remembered(folder)
    )
    if not doubtful:
        return
    if is_trusted(folder):
        remember(folder, doubtful)
        return
    lines = [f"  {shown(reference)}" for reference in doubtful[:_LISTED]]
    if len(doubtful) > _LISTED:
        lines.append(f"  and {len(doubtful) - _LISTED} more")
    listed = "\n".join(lines)
    raise TrustError(
        f"files in {folder} name {what}:\n{listed}\n"
        f"A file is data: nothing of this was used. Do you trust whoever wrote this folder? Then add "
        f"trust={folder} (asked once: it is remembered for these)."
    )


def is_trusted(folder: str | os.PathLike) -> bool:
    """Whether the user names this folder, or one around it, as trusted right now."""
    folder = Path(folder).expanduser().resolve()
    return any(folder.is_relative_to(named) for named in _named.get())


# ---------------------------------------------------------------- memory


def remember(folder: str | os.PathLike, references: Iterable[str]) -> None:
    """Trust these in this folder from now on; a warning where nothing can be written."""
    folder = Path(folder).expanduser().resolve()
    before = _remembered(folder)
    path = _memory_of(folder)
    if before >= set(references) and path.exists():
        return
    from .checkpoints import atomic_write  # here, since it imports torch

    memory = _Memory(folder=str(folder), trusted=sorted(before | set(references)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(path) as beside:
            beside.write_text(json.dumps(memory.model_dump(), indent=1), encoding="utf-8")
    except (OSError, MetanetError) as error:
        _log.warning("can't remember what is trusted in %s: %s", folder, error)


def is_known(folder: str | os.PathLike) -> bool:
    """Whether anything was remembered of this folder: it was made here, or trusted before."""
    return _memory_of(Path(folder).expanduser().resolve()).is_file()


def _place(folder: str | os.PathLike | bool) -> Path:
    """A folder in full, or what stands for every folder."""
    if folder is True:
        return _ANY
    if folder is False:
        raise TypeError("False names no folder that could be trusted")
    return Path(folder).expanduser().resolve()


def _remembered(folder: Path) -> set[str]:
    path = _memory_of(folder)
    if not path.is_file():
        return set()
    try:
        memory = validated(_Memory, read_json(path), f"'{path}'")
    except MetanetError as error:
        _log.warning("%s is ignored: %s", path, error)
        return set()
    return set(memory.trusted) if memory.folder == str(folder) else set()


def _memory_of(folder: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return _home().expanduser() / "trusted" / f"{digest}.json"


def _home() -> Path:
    folder = os.environ.get(STATE_VARIABLE)
    if folder:
        return Path(folder)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "metanet"


# ---------------------------------------------------------------- paths and messages


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder once its links are followed; circles of links do not."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def check_inside(folder: Path) -> None:
    """Refuse a folder that holds links out of it, pipes or devices.

    Before anything is written into it.

    A stranger's ``error.txt -> ~/.bashrc`` would be written through.

    Raises:
        TrustError: names the first of them.
    """
    root = folder.resolve()
    for number, path in enumerate(root.rglob("*")):
        if number > _MOST_ENTRIES:
            raise TrustError(
                f"{folder} holds more than {_MOST_ENTRIES} files: that is no run's directory"
            )
        if path.is_symlink() and not is_inside(path, root):
            raise TrustError(
                f"{folder} was not made here, and {shown(str(path.relative_to(root)))} in it is "
                "a link that leads out of it. Remove the link, "
                f"or add trust={folder} if you made it"
            )
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            raise TrustError(
                f"{folder}: {shown(str(path.relative_to(root)))} is neither a file nor a folder; remove it"
            )


def shown(reference: object) -> str:
    """What a stranger's file says, for a message: no control characters, not without end."""
    text = repr(reference)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...'"


def _is_folder(text: str) -> bool:
    try:
        return Path(text).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False
