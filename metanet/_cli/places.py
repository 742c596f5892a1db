"""What values say of this machine: files that must be there, places to write to, devices,
modules."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import MetanetError
from ..registry import Registry, is_own
from ..runs import check_login
from .devices import DEVICES, TRACING_DEVICES, unusable

_FACTORY = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_GLOB = re.compile(r"[*?\[]")


def checkpoint(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A file or folder of weights. Patterns are left to whoever may expand them."""
    paths = [text for text in _texts(value) if not _GLOB.search(text)]
    missing = [path for path in paths if not _exists(path)]
    if not missing:
        return None
    from ..checkpoints import load_checkpoint

    try:
        load_checkpoint(missing[0])
    except MetanetError as error:  # says what there is instead
        return f"{key}={missing[0]}: {error}"
    return None


def checkpoints(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A list of them, or a pattern."""
    if isinstance(value, str) and not _GLOB.search(value):
        return f"{key}={value}: give a list of checkpoints, {key}=[{value},B]"
    return checkpoint(key, value, cfg)


def there(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A file or folder that is read."""
    missing = next((text for text in _texts(value) if not _exists(text)), None)
    if missing is None:
        return None
    return f"{key}={missing}: there is no such file or folder{_nearby(missing)}"


def folder(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A folder that is read."""
    if Path(value).expanduser().is_file():
        return f"{key}={value} is a file; give a folder"
    return there(key, value, cfg)


def data(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """What networks are run on: a path, or a function that makes batches."""
    missing = next((text for text in _texts(value) if not _exists(text)), None)
    if missing is None:
        return None
    if _FACTORY.fullmatch(missing):
        return _unimportable(key, missing)
    return (
        f"{key}={missing}: there is no such folder or file{_nearby(missing)}. "
        "It is a folder of images (one subfolder a class), a text file, "
        "a .safetensors file with inputs and targets, or package.module:factory"
    )


def reference(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """The reference of a network. What a timm or transformers network is called is left to these,
    which load slowly."""
    scheme, _, name = value.partition(":")
    if name and scheme in ("timm", "hf"):
        return None
    return _unimportable(key, value)


def reference_unread(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A reference by its looks: nothing is imported, as a resumed run's own record may have named
    it."""
    if ":" in value or Path(value).expanduser().is_dir():
        return None
    choices = "timm:NAME, hf:FOLDER, package.module:factory, or a folder"
    return f"{key}={value} names no network: give {choices}"


def model(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A metanetwork by its name, or by the module of one's own that registers it."""
    from ..nn import find

    try:
        find(value)
    except MetanetError as error:
        return f"{key}={value}: {error}"
    return None


def loss(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A loss by its name, or a function."""
    if ":" in value:
        return _unimportable(key, value)
    from ..evaluation import LOSSES

    return unknown_choice(key, value, LOSSES, "loss", "or package.module:function")


def login(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """Where runs are sent online, somebody must be logged in."""
    try:
        check_login({"mode": value})
    except MetanetError as error:
        return str(error)
    return None


def device(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A device that this machine has."""
    return _device(key, value, DEVICES)


def device_or_meta(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A device that this machine has, or the one without values."""
    return _device(key, value, TRACING_DEVICES)


def free(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A folder that will be made."""
    path = Path(value).expanduser()
    place = path.resolve()
    inputs = [text for name in ("a", "b", "base", "models") for text in _texts(cfg.get(name))]
    folders = [text for text in inputs if _exists(text) and Path(text).is_dir()]
    for text in folders:
        source = Path(text).resolve()
        if place.is_relative_to(source):
            where = "is" if source == place else "lies in"
            return f"{key}={value} {where} the folder of an input, {text}: give another one"
    if path.is_dir() and any(path.iterdir()):
        from ..checkpoints import remove_leftovers  # here, since it imports torch

        remove_leftovers(path, r"{name}\.lock")  # of whoever made it and was killed right after
        return (
            f"{key}={value} is not empty: "
            "give a folder that does not exist yet, so that nothing is overwritten"
        )
    return folder_or_new(key, value, cfg)


def folder_or_new(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A folder that is there, or will be made."""
    path = Path(value).expanduser()
    if path.is_file():
        return f"{key}={value} is a file: give a folder that does not exist yet"
    return _unwritable(key, value, path)


def file(key: str, value: Any, cfg: Mapping[str, Any]) -> str | None:
    """A file that will be written."""
    path = Path(value).expanduser()
    if path.is_dir():
        return f"{key}={value} is a folder; give a file"
    return _unwritable(key, value, path.parent)


def unknown_choice(key: str, value: str, names: Any, what: str, besides: str = "") -> str | None:
    """Why a name is none that can be chosen; ``None`` if it is.

    Args:
        key: of the command line, whose value it is; what it names is imported if it is a module.
        value: the name.
        names: a registry, where ``package.module`` is found as well; or the names themselves.
        what: is chosen.
        besides: what may be given besides, for the message.
    """
    if isinstance(names, Registry) and (is_own(value) or names.problem(value)):
        try:
            names.find(value)
        except MetanetError as error:
            return f"{key}={value}: {error}"
        return None
    return unknown_name(key, value, names, what, besides)


def unknown_name(key: str, value: str, names: Any, what: str, besides: str = "") -> str | None:
    """Where ``value`` is none of the names: which there are, and the closest."""
    if value in names:
        return None
    close = get_close_matches(value, list(names), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    choices = ", ".join(filter(None, [*sorted(names), besides]))
    return f"{key}={value}: there is no {what} {value!r}. Choices: {choices}{hint}"


def _unwritable(key: str, value: str, path: Path) -> str | None:
    """Why nothing can be written at ``path``; folders that are missing are made."""
    path = path.absolute()
    above = next((place for place in (path, *path.parents) if place.exists()), Path("/"))
    if not above.is_dir():
        return f"{key}={value}: {above} is a file, so that there can be no folder in it"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"{key}={value}: {above} may not be written to{_reason(above)}; give another place"
    return None


def _reason(folder: Path) -> str:
    """What the system says of a folder that nobody may write to, whatever their rights."""
    read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    return f" ({os.strerror(errno.EROFS)})" if read_only else ""


def _device(key: str, value: str, choices: tuple[str, ...]) -> str | None:
    listed = ", ".join(choices)
    if value.partition(":")[0] not in choices:
        contained = [choice for choice in choices if choice in value.lower()]
        close = get_close_matches(value, choices, n=1) or contained[:1]
        hint = f"; did you mean {close[0]}?" if close else ""
        reason = "has no values" if value == "meta" else "can't be used"
        return f"{key}={value} {reason}: choose from {listed}{hint}"
    if value in ("auto", "cpu", "meta"):  # which every machine has
        return None
    objection = unusable(value)
    if objection is None:
        return None
    summary = objection.splitlines()[0]
    return f"{key}={value} can't be used: {summary}. Choose from {listed}"


def _unimportable(key: str, value: str) -> str | None:
    from ..sources import load_factory

    try:
        load_factory(value)
    except MetanetError as error:
        text = str(error)
        if text.startswith(f"{key}="):
            return text
        separator = "=" if text.startswith(value) else ": "
        return f"{key}{separator}{text}"
    return None


def _texts(value: Any) -> Iterator[str]:
    """``A`` and ``[A, null, B]``: the texts in it."""
    values = value if isinstance(value, list) else [value]
    return (text for text in values if isinstance(text, str))


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        # too long, of a user that there isn't, with a null character
        return False


def _nearby(text: str) -> str:
    """What there is instead: the files in the same folder, and the one that is named most alike."""
    path = Path(text).expanduser()
    folder = path.parent
    try:
        names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    except FileNotFoundError:
        return f": nor does its folder '{folder}'"
    except (OSError, RuntimeError, ValueError):
        return ""
    if not names:
        return "; its folder is empty"
    others = f" and {len(names) - 5} more" if len(names) > 5 else ""
    listed = f"; its folder has {', '.join(names[:5])}{others}"
    close = get_close_matches(path.name, names, n=1)
    return f"{listed}; did you mean {path.with_name(close[0])}?" if close else listed
