"""Why a plugin can't be used."""

import importlib.util
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import TracebackType

from ..errors import MetanetError, brief
from ._packages import distribution_of, package_of

_LONGEST = 600  # characters of what went wrong


def failure(point: EntryPoint, error: Exception) -> str:
    """One line: the package, the file, and what went wrong there.

    >>> point = EntryPoint("nearest", "garden.nearest", "metanet.matchers")
    >>> failure(point, ValueError("no seeds"))
    "plugin 'nearest' of an unknown package (garden.nearest): ValueError: no seeds"
    """
    kind = "" if isinstance(error, MetanetError) else f"{type(error).__name__}: "
    text = brief(" ".join(str(error).split()), _LONGEST)
    where = _place(point, error)
    owner = distribution_of(point)
    owner = owner if point.dist is None else f"package {owner}"
    return f"plugin {point.name!r} of {owner} ({where}): {kind}{text}"


def _place(point: EntryPoint, error: Exception) -> str:
    """The last line of the package's own code that was running, else its module."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    lines = _lines_within(_folder(package_of(point)), error.__traceback__)
    if lines:
        return lines[-1]
    module = sys.modules.get(point.module)
    return getattr(module, "__file__", None) or point.value


def _folder(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


def _lines_within(folder: Path | None, frames: TracebackType | None) -> list[str]:
    lines = []
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if folder is not None and Path(file).is_relative_to(folder):
            lines.append(f"{file}, line {frames.tb_lineno}")
        frames = frames.tb_next
    return lines
