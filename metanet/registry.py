"""One register for everything that has a name: matchers, merge methods, metanetworks, tasks, zoos ...

A kind of thing has one :class:`Registry`. Three ways lead into it:

- **ours**: a file in the kind's package, found by :mod:`pkgutil`; its decorator registers it;
- **a package of one's own**: an entry point of the kind's group, whose value is the module that
  registers the thing under the entry point's name (:mod:`metanet.plugins`);

  .. code-block:: toml

      [project.entry-points."metanet.matchers"]
      nearest = "their_package.nearest"

- **a file of one's own**, without packaging: ``package.module`` or ``package.module:name`` given
  where a name is expected, from the command line or from Python.

A plugin that can't be used (its import fails, its name is taken, its signature is wrong) never
stops the others: it is told once as a warning, and as an error where it is asked for by its name.
"""

import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from . import plugins
from .errors import MetanetError, brief

Entry = TypeVar("Entry")

_WORD = r"[^\W\d]\w*"
# package.module, package.module:name, module:name; a word alone is a name, so that no typo imports
# anything
_OWN = re.compile(rf"{_WORD}(\.{_WORD})+(:[\w.-]+)?|{_WORD}:[\w.-]+")
_named: set[str] = set()


class PluginWarning(UserWarning):
    """A plugin that can't be used."""


def is_own(name: object) -> bool:
    """Whether this is the way to name a file of one's own.

    >>> is_own("my.matchers"), is_own("my_matchers:nearest"), is_own("weight")
    (True, True, False)
    """
    return isinstance(name, str) and _OWN.fullmatch(name) is not None


def named_modules() -> frozenset[str]:
    """Modules of the user's own from which something was found by its module's name."""
    return frozenset(_named)


@dataclass(frozen=True)
class _Home:
    """Where something was registered.

    Attributes:
        file: for messages.
        module: that registered it.
        name: of the function or class in that module.
    """

    file: str
    module: str
    name: str

    @classmethod
    def of(cls, described: Any) -> "_Home":
        module = str(getattr(described, "__module__", ""))
        return cls(_file_of(described), module, str(getattr(described, "__qualname__", "")))

    def is_in(self, package: str) -> bool:
        """Whether the module is this one, or a part of it."""
        return self.module == package or self.module.startswith(f"{package}.")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Everything of one kind by its name.

    >>> colours = Registry("colour")
    >>> colours.add("red", "#f00")
    '#f00'
    >>> colours.find("rad")
    Traceback (most recent call last):
    metanet.errors.MetanetError: there is no colour 'rad'; did you mean 'red'? Choices: red

    As a mapping it holds everything, plugins included. What the names mean is the kind's own
    affair: an entry may be a function, a class or a record of either.

    Args:
        what: what to call an entry in messages, e.g. ``"merge method"``.
        package: whose modules, all that do not start with an underscore, register ours.
        group: of entry points, e.g. ``"metanet.methods"``.
        described: the function or class whose docstring says what an entry is; default: the entry's
            ``function`` if it has one, else the entry.
    """

    def __init__(
        self,
        what: str,
        *,
        package: str | None = None,
        group: str | None = None,
        described: Callable[[Entry], Any] | None = None,
    ) -> None:
        self.what = what
        self.package = package
        self.group = group
        self._described = described or _function_of
        self._entries: dict[str, Entry] = {}
        self._homes: dict[str, _Home] = {}
        self._failures: dict[EntryPoint, str] = {}
        self._ours_are_here = package is None
        self._plugins_are_here = group is None

    # ---------------------------------------------------------------- registering

    def add(self, name: str, entry: Entry, home: Any = None) -> Entry:
        """Register an entry, and return it.

        Args:
            name: what users call it.
            entry: what it is.
            home: the function or class that was registered, by which messages name its file.

        Raises:
            MetanetError: the name is taken, or is no text; the message names both places.
        """
        new = _Home.of(self._described(entry) if home is None else home)
        if not isinstance(name, str) or not name:
            raise MetanetError(
                f"a {self.what} in {new.file} is registered as {name!r}: give it a name"
            )
        if name in self._entries:
            raise MetanetError(
                f"there are two {self.plural} named {name!r}: in {self.home(name)} and in "
                f"{new.file}. Give one of them another name"
            )
        self._entries[name] = entry
        self._homes[name] = new
        return entry

    def remove(self, name: str) -> Entry:
        """Take an entry out again, and return it: to register a changed one in a notebook.

        Raises:
            KeyError: there is none of this name.
        """
        entry = self[name]
        del self._entries[name], self._homes[name]
        return entry

    @property
    def plural(self) -> str:
        """What to call several entries."""
        return self.what + ("es" if self.what.endswith("s") else "s")

    # ---------------------------------------------------------------- finding

    def find(self, name: str) -> Entry:
        """An entry by its name: ours, a plugin's, or ``package.module`` and ``package.module:name``.

        Args:
            name: from the command line or from Python: a module that it names is imported. For a
                name from a file use ``registry[name]``, which imports nothing that isn't installed
                as a plugin.

        Raises:
            MetanetError: there is none, or it can't be used; the message lists the choices.
        """
        if name in self:
            return self._entries[name]
        if problem := self.problem(name):
            raise MetanetError(f"{self.what} {name!r} can't be used: {problem}")
        if is_own(name):
            return self._entries[self._own(name)]
        raise MetanetError(self._unknown(name))

    def choices(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self)

    def failures(self) -> list[str]:
        """Of every plugin that can't be used, why: a line each."""
        self._load_plugins()
        return list(self._failures.values())

    def problem(self, name: str) -> str | None:
        """Why the plugin of this name can't be used; ``None`` where there is none, or it can."""
        if name in self:
            return None
        problems = (text for point, text in self._failures.items() if point.name == name)
        return next(problems, None)

    def home(self, name: str) -> str:
        """The file in which an entry was registered."""
        return self._homes[name].file

    def is_installed(self, name: str) -> bool:
        """Whether an entry is ours or a plugin's, so that it is found by its name in every process.

        If not, it is of a file that was imported: whoever needs it again must name that file.
        """
        homes = ["metanet", *(point.module for point in self._points())]
        return any(self._homes[name].is_in(module) for module in homes)

    def __getitem__(self, name: str) -> Entry:
        if name not in self:
            raise KeyError(name)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load_ours()
        self._load_plugins()
        return iter(list(self._entries))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        """Loads no more than it must to tell: ours, then the plugins of this name."""
        if not isinstance(name, str):
            return False
        if name not in self._entries:
            self._load_ours()
        if name not in self._entries:
            self._load_plugins(name)
        return name in self._entries

    def __repr__(self) -> str:
        return f"Registry({self.what!r}: {', '.join(self.choices())})"

    def describe(self) -> str:
        """A line for each entry: its name, and the first sentence of its docstring."""
        width = max(map(len, self), default=0)
        lines = [f"{name:<{width}}  {self.summary(name)}" for name in self.choices()]
        return "\n".join(line.rstrip() for line in lines)

    def summary(self, name: str) -> str:
        """The first paragraph of an entry's docstring; empty where it has none."""
        text = inspect.getdoc(self._described(self[name])) or ""
        return " ".join(text.partition("\n\n")[0].split())

    # ---------------------------------------------------------------- loading

    def _load_ours(self) -> None:
        if self._ours_are_here:
            return
        self._ours_are_here = True
        package = importlib.import_module(str(self.package))
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")

    def _load_plugins(self, name: str | None = None) -> None:
        """Import the plugins of a name; without one, all of them."""
        if self._plugins_are_here:
            return
        self._plugins_are_here = name is None
        for point in self._points():
            if name in (None, point.name) and not self._is_loaded(point):
                self._load(point)

    def _points(self) -> Sequence[EntryPoint]:
        return () if self.group is None else plugins.points(self.group)

    def _is_loaded(self, point: EntryPoint) -> bool:
        """Whether its import failed before, or the entry of this name is its own."""
        home = self._homes.get(point.name)
        return point in self._failures or (home is not None and home.is_in(point.module))

    def _load(self, point: EntryPoint) -> None:
        """Import a plugin; what goes wrong is kept and told once."""
        self._load_ours()  # ours come first: a plugin can't take a name of theirs
        try:
            self._import(point)
        except Exception as error:  # whatever a stranger's module does: all the others are to work
            self._forget_broken()
            self._failures[point] = plugins.failure(point, error)
            warnings.warn(self._failures[point], PluginWarning, stacklevel=2)

    def _import(self, point: EntryPoint) -> None:
        if point.name in self._entries:
            raise MetanetError(
                f"the name {point.name!r} is taken by a {self.what} in {self.home(point.name)}"
            )
        module = importlib.import_module(point.module)
        if point.name not in self._entries:
            raise MetanetError(f"{module.__file__} registers no {self.what} named {point.name!r}")

    def _forget_broken(self) -> None:
        """Drop what a module registered before its import failed: Python has dropped the module."""
        for name in list(self._entries):
            module = self._homes[name].module
            if module and module not in sys.modules:
                self.remove(name)

    # ---------------------------------------------------------------- files of one's own

    def _own(self, reference: str) -> str:
        """The name that ``package.module`` registers, or that ``package.module:name`` stands for."""
        module, _, inner = reference.partition(":")
        if any(point.module == module for point in self._points()):
            self._load_plugins()
        path = self._import_own(module)
        homes = {name: self._homes[name] for name in self._entries}
        homes = {name: home for name, home in homes.items() if home.is_in(module)}
        names = sorted(n for n, home in homes.items() if inner in ("", n, home.name))
        if len(names) == 1:
            _named.add(module)
            return names[0]
        if not homes:
            raise MetanetError(f"{path} registers no {self.what}")
        asked = f"none named {inner!r}" if inner else f"{len(names)} {self.plural}"
        choices = ", ".join(f"{module}:{name}" for name in sorted(homes))
        raise MetanetError(f"{path} registers {asked}: name one of {choices}")

    def _import_own(self, module: str) -> str:
        """Import a module of the user's own, and return its file."""
        try:
            return str(importlib.import_module(module).__file__)
        except MetanetError:
            self._forget_broken()
            raise
        except ModuleNotFoundError as error:
            missing = str(error.name)
            if missing != module and not module.startswith(f"{missing}."):
                raise MetanetError(
                    f"{module}: it needs the module {missing}, which is not installed"
                ) from error
            raise MetanetError(
                f"{self._unknown(module)}; and there is no module {missing}: install its package, "
                f"or run from the folder that holds {missing.replace('.', '/')}.py"
            ) from error
        except Exception as error:
            self._forget_broken()
            raise MetanetError(
                f"{module}: its import failed: {type(error).__name__}: {brief(error)}"
            ) from error

    def _unknown(self, name: Any) -> str:
        names = self.choices()
        close = get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        broken = "".join(f"\n  {problem}" for problem in self._failures.values())
        besides = [] if self.group is None else ["or package.module for one of your own"]
        choices = ", ".join([*(names or ["none"]), *besides])
        return f"there is no {self.what} {name!r}{hint} Choices: {choices}{broken}"


def _function_of(entry: Any) -> Any:
    return getattr(entry, "function", entry)


def _file_of(described: Any) -> str:
    """The file of a function or a class; its module or type where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(described))
    except (TypeError, AttributeError):
        return getattr(described, "__module__", None) or type(described).__name__
    return file or str(described.__module__)
