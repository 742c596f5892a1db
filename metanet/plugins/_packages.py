"""Entry points, the packages that they lie in, and their folders of configuration files."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path

_PREFIX = "metanet."  # of every group of entry points

CONFIGURED: Mapping[str, str] = {
    "metanet.matchers": "matcher",
    "metanet.methods": "method",
    "metanet.models": "model",
    "metanet.tasks": "task",
    "metanet.zoos": "zoo",
}
"""Groups of entry points that have configuration files, and the folders of these."""


@dataclass(frozen=True)
class Package:
    """A Python package that plugs something in.

    Attributes:
        name: by which it is imported.
        distributions: which install it, by their names; more than one is a mistake.
        points: its entry points.
        trusted: a distribution has installed it, so that configurations may name its classes.
    """

    name: str
    distributions: tuple[str, ...]
    points: tuple[EntryPoint, ...]
    trusted: bool

    @property
    def folder(self) -> Path | None:
        """Where its modules lie; ``None`` for a package that isn't there, or is a single file."""
        try:
            spec = importlib.util.find_spec(self.name)
        except (ImportError, ValueError):
            return None
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        return Path(places[0]) if places else None

    @property
    def conf(self) -> Path | None:
        """Its folder of configuration files, if it has one."""
        folder = self.folder
        if folder is None or not (folder / "conf").is_dir():
            return None
        return folder / "conf"

    def __str__(self) -> str:
        return f"{self.name} (of {' and '.join(self.distributions)})"


@cache
def points(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, in an order that does not hang on that of installation."""
    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, point.value)))


@cache
def packages() -> tuple[Package, ...]:
    """Every package that plugs something in, by name."""
    by_name: dict[str, list[EntryPoint]] = {}
    for group in sorted(entry_points().groups):
        if group.startswith(_PREFIX):
            for point in points(group):
                by_name.setdefault(package_of(point), []).append(point)
    return tuple(_package(name, members) for name, members in sorted(by_name.items()))


def _package(name: str, members: list[EntryPoint]) -> Package:
    distributions = {distribution_of(point): point.dist for point in members}
    installed = any(_installs(dist, name) for dist in distributions.values() if dist is not None)
    return Package(name, tuple(sorted(distributions)), tuple(members), installed)


def package_of(point: EntryPoint) -> str:
    """The outermost package of an entry point's module."""
    return point.module.partition(".")[0]


def distribution_of(point: EntryPoint) -> str:
    """The name under which whoever has this entry point was installed."""
    return point.dist.name if point.dist is not None else "an unknown package"


def _installs(distribution: Distribution, package: str) -> bool:
    """Whether a package is of a distribution's own files.

    An entry point may name anybody's module, ``os`` too. An editable installation lists no modules:
    it is taken at its word, except for Python's own modules.
    """
    if package in sys.stdlib_module_names:
        return False
    files = distribution.files or ()
    if any(file.parts[0] in (package, f"{package}.py") for file in files):
        return True
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def trusted() -> tuple[str, ...]:
    """The packages whose classes configurations may name: the user has installed them."""
    return tuple(package.name for package in packages() if package.trusted)


def conf_folders() -> tuple[Path, ...]:
    """The folders of configuration files that plugins bring."""
    return tuple(package.conf for package in packages() if package.conf is not None)


@cache
def extend_search_path() -> None:
    """Have Hydra look for configuration files in the plugins' folders, too.

    It looks there last, so that no plugin's file stands in for one of ours.
    """
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class PluginFolders(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in conf_folders():
                search_path.append("metanet-plugins", f"file://{folder}")

    Plugins.instance().register(PluginFolders)


def forget() -> None:
    """Look for entry points anew: something was installed while we were running."""
    points.cache_clear()
    packages.cache_clear()
