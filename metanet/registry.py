"""One register for everything that has a name: matchers, merge methods, metanetworks, tasks, zoos ...

A kind of thing has one :class:`Registry`. Three ways lead into it:

- **ours**: a file in the kind's package, found by :mod:`pkgutil`; its decorator registers it;
- **a package of one's own**: an entry point of the kind's group, whose value is the module that registers
  the thing under the entry point's name;

  .. code-block:: toml

      [project.entry-points."metanet.matchers"]
      nearest = "their_package.nearest"

- **a file of one's own**, without packaging: ``package.module`` or ``package.module:name`` given where a name
  is expected, from the command line or from Python.

A plugin that can't be used (its import fails, its name is taken, its signature is wrong) never stops the
others: it is told once as a warning, and as an error where it is asked for by its name.
"""

import importlib
import inspect
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .errors import MetanetError, brief

Entry = TypeVar("Entry")

_WORD = r"[^\W\d]\w*"
# package.module, package.module:name, module:name; a word alone is a name, so that no typo imports anything
_OWN = re.compile(rf"{_WORD}(\.{_WORD})+(:[\w.-]+)?|{_WORD}:[\w.-]+")


class PluginWarning(UserWarning):
    """A plugin that can't be used."""


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Everything of one kind by its name.

    >>> colours = Registry("colour")
    >>> colours.add("red", "#f00")
    '#f00'
    >>> colours.find("rad")
    Traceback (most recent call last):
    metanet.errors.MetanetError: there is no colour 'rad'; did you mean 'red'? Choices: red

    As a mapping it holds everything, plugins included. What the names mean is the kind's own affair: an
    entry may be a function, a class or a record of either.

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
        self._homes: dict[str, str] = {}
        self._modules: dict[str, str] = {}
        self._failures: dict[str, str] = {}
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
        described = self._described(entry) if home is None else home
        place = _place(described)
        if not isinstance(name, str) or not name:
            raise MetanetError(
                f"a {self.what} in {place} is registered as {name!r}: give it a name"
            )
        if name in self._entries:
            raise MetanetError(
                f"there are two {self.plural} named {name!r}: in {self._homes[name]} and in {place}. "
                "Give one of them another name"
            )
        self._entries[name] = entry
        self._homes[name] = place
        self._modules[name] = str(getattr(described, "__module__", ""))
        return entry

    @property
    def plural(self) -> str:
        """What to call several entries."""
        return self.what + ("es" if self.what.endswith("s") else "s")

    # ---------------------------------------------------------------- finding

    def find(self, name: str) -> Entry:
        """An entry by its name: ours, a plugin's, or ``package.module`` and ``package.module:name``.

        Args:
            name: from the command line or from Python: a module that it names is imported. For a name
                from a file use ``registry[name]``, which imports nothing that isn't installed as a plugin.

        Raises:
            MetanetError: there is none, or it can't be used; the message lists the choices.
        """
        if name in self._known(name):
            return self._entries[name]
        if name in self._failures:
            raise MetanetError(f"{self.what} {name!r} can't be used: {self._failures[name]}")
        module, _, inner = str(name).partition(":")
        if _OWN.fullmatch(str(name)):
            return self._entries[self._import_own(module, inner)]
        raise MetanetError(self._unknown(name))

    def choices(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self)

    def failures(self) -> Mapping[str, str]:
        """Plugins that can't be used by their names, and why."""
        self._load_plugins()
        return dict(self._failures)

    def home(self, name: str) -> str:
        """The file in which an entry was registered."""
        return self._homes[name]

    def __getitem__(self, name: str) -> Entry:
        return self._known(name)[name]

    def __iter__(self) -> Iterator[str]:
        self._load_ours()
        self._load_plugins()
        return iter(self._entries)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._known(name)

    def __repr__(self) -> str:
        return f"Registry({self.what!r}: {', '.join(self.choices())})"

    def describe(self) -> str:
        """A line for each entry: its name, and the first sentence of its docstring."""
        width = max(map(len, self), default=0)
        return "\n".join(
            f"{name:<{width}}  {self.summary(name)}".rstrip() for name in self.choices()
        )

    def summary(self, name: str) -> str:
        """The first line of an entry's docstring; empty where it has none."""
        text = inspect.getdoc(self._described(self[name])) or ""
        paragraph = text.partition("\n\n")[0]
        return " ".join(paragraph.split())

    # ---------------------------------------------------------------- loading

    def _known(self, name: object) -> Mapping[str, Entry]:
        """The entries, after whatever has to be loaded for this name to be among them."""
        if name not in self._entries:
            self._load_ours()
        if name not in self._entries:
            for point in self._points():
                if point.name == name:
                    self._load(point)
        return self._entries

    def _load_ours(self) -> None:
        if self._ours_are_here:
            return
        self._ours_are_here = True
        package = importlib.import_module(str(self.package))
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")

    def _load_plugins(self) -> None:
        if self._plugins_are_here:
            return
        self._plugins_are_here = True
        for point in self._points():
            self._load(point)

    def _points(self) -> Sequence[EntryPoint]:
        return () if self.group is None else _points_of(self.group)

    def _load(self, point: EntryPoint) -> None:
        """Import a plugin; what goes wrong is kept under its name and told once."""
        self._load_ours()
        if point.name in self._failures or self._is_from(point):
            return
        try:
            self._import(point)
        except Exception as error:  # whatever a stranger's module does: all the others are to work
            package = point.dist.name if point.dist is not None else "an unknown package"
            problem = brief(f"{type(error).__name__}: {error}")
            self._failures[point.name] = (
                f"plugin {point.name!r} of package {package} ({point.value}): {problem}"
            )
            warnings.warn(self._failures[point.name], PluginWarning, stacklevel=2)

    def _is_from(self, point: EntryPoint) -> bool:
        """Whether the entry of this name is the plugin's own."""
        return _is_within(self._modules.get(point.name, ""), point.module)

    def _import(self, point: EntryPoint) -> None:
        if point.name in self._entries:
            raise MetanetError(
                f"the name {point.name!r} is taken by a {self.what} in {self._homes[point.name]}"
            )
        before = dict(self._entries), dict(self._homes), dict(self._modules)
        try:
            module = importlib.import_module(point.module)
            if point.name not in self._entries:
                raise MetanetError(
                    f"{module.__file__} registers no {self.what} named {point.name!r}"
                )
        except BaseException:
            # what half a module registered is of no use
            self._entries, self._homes, self._modules = before
            raise

    def _import_own(self, module: str, inner: str) -> str:
        """The name that a module of the user's own registers."""
        if module in {point.module for point in self._points()}:
            self._load_plugins()
        try:
            path = importlib.import_module(module).__file__
        except ModuleNotFoundError as error:
            if error.name != module and not module.startswith(f"{error.name}."):
                raise MetanetError(
                    f"{module}: it needs the module {error.name}, which is not installed"
                ) from error
            raise MetanetError(
                f"{self._unknown(module)}; and there is no module {error.name}: install its package, or run "
                f"from the folder that holds {str(error.name).replace('.', '/')}.py"
            ) from error
        except MetanetError:
            raise
        except Exception as error:
            raise MetanetError(
                f"{module}: its import failed: {type(error).__name__}: {brief(str(error))}"
            ) from error
        names = sorted(n for n, home in self._modules.items() if _is_within(home, module))
        if inner and inner in names:
            return inner
        if not inner and len(names) == 1:
            return names[0]
        if not names:
            raise MetanetError(f"{path} registers no {self.what}")
        asked = f"none named {inner!r}" if inner else f"{len(names)} {self.plural}"
        raise MetanetError(
            f"{path} registers {asked}: name one of {', '.join(f'{module}:{name}' for name in names)}"
        )

    def _unknown(self, name: Any) -> str:
        names = self.choices()
        close = get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        broken = "".join(f"\n  {problem}" for problem in self._failures.values())
        return (
            f"there is no {self.what} {name!r}{hint} Choices: {', '.join(names) or 'none'}{broken}"
        )


@cache
def _points_of(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, in an order that does not hang on that of installation."""
    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, point.value)))


def plugin_packages() -> dict[str, str]:
    """The top-level packages that plug something in, and the distributions that they belong to."""
    found = entry_points()
    groups = [group for group in found.groups if group.startswith("metanet.")]
    return {
        point.module.partition(".")[0]: point.dist.name if point.dist is not None else "unknown"
        for group in sorted(groups)
        for point in _points_of(group)
    }


def _function_of(entry: Any) -> Any:
    return getattr(entry, "function", entry)


def _place(described: Any) -> str:
    """The file that holds a function or a class; its module or type where there is none."""
    try:
        return inspect.getsourcefile(inspect.unwrap(described)) or str(described.__module__)
    except (TypeError, AttributeError):
        return getattr(described, "__module__", None) or type(described).__name__


def _is_within(module: str, package: str) -> bool:
    """Whether a module is this one, or a part of it."""
    return module == package or module.startswith(f"{package}.")
