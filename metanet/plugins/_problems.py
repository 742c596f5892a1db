"""What is wrong with the files of plugins, as can be told without importing anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from ._packages import CONFIGURED, Package, packages, points

_GROUPS = {folder: group for group, folder in CONFIGURED.items()}


@dataclass(frozen=True)
class _File:
    """A configuration file that brings one choice of a kind of thing.

    Attributes:
        path: where it lies.
        values: what it says at its top.
        damage: why it can't be read; empty if it can.
    """

    path: Path
    values: dict[Any, Any]
    damage: str = ""

    @classmethod
    def read(cls, path: Path) -> "_File":
        import yaml

        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            return cls(path, {}, " ".join(str(error).split()))
        return cls(path, values if isinstance(values, dict) else {})

    @property
    def name(self) -> Any:
        """Of the registered thing that it chooses."""
        return self.values.get("name")

    @property
    def target(self) -> str:
        """The class that it names; empty if it names none."""
        return str(self.values.get("_target_", ""))

    def leads_to(self, point: EntryPoint) -> bool:
        """Whether it chooses what an entry point stands for."""
        named = point.name in (self.path.stem, self.name)
        return named or self.target.startswith(f"{point.module}.")


def problems(ours: Path) -> list[str]:
    """What is wrong with the plugins that are installed.

    Args:
        ours: metanet's own folder of configuration files.

    Returns:
        A line each, with the package and the file.
    """
    lines = []
    for package in packages():
        mistakes = [*_of_name(package), *_of_code(package), *_of_files(package, ours)]
        lines += [f"plugin package {package}: {problem}" for problem in mistakes]
    return lines


def _of_name(package: Package) -> Iterator[str]:
    if len(package.distributions) > 1:
        yield f"more than one has a package of this name; the one in {package.folder} is used"


def _of_code(package: Package) -> Iterator[str]:
    """Code that no configuration file leads to."""
    configured = [point for point in package.points if point.group in CONFIGURED]
    folder = package.folder
    if folder is None or not configured:
        return  # a package that can't be imported is told of where it is asked for
    if package.conf is None:
        listed = ", ".join(f"{CONFIGURED[point.group]}={point.name}" for point in configured)
        yield f"there is no folder {folder / 'conf'}, so that commands don't know {listed}"
        return
    for point in configured:
        group = CONFIGURED[point.group]
        files = map(_File.read, sorted((package.conf / group).glob("*.yaml")))
        if not any(file.leads_to(point) for file in files):
            missing = package.conf / group / f"{point.name}.yaml"
            yield (
                f"{point.module} has no configuration file, so that commands don't know "
                f"{group}={point.name}: add {missing}"
            )


def _of_files(package: Package, ours: Path) -> Iterator[str]:
    """Files whose name is another's already, and files that lead to no code."""
    conf = package.conf
    if conf is None:
        return
    earlier = [other.conf for other in packages() if other.name < package.name]
    folders = [ours, *(folder for folder in earlier if folder is not None)]
    for path in sorted(conf.rglob("*.yaml")):
        name = path.relative_to(conf)
        occupied = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if occupied is not None:
            yield f"{path} is not used, as {occupied} has its name: give it another"
        elif len(name.parts) == 2 and name.parts[0] in _GROUPS:
            problem = _leads_nowhere(_File.read(path), package, ours)
            if problem:
                yield f"{path} {problem}"


def _leads_nowhere(file: _File, package: Package, ours: Path) -> str | None:
    """Why what a file chooses is not there."""
    if file.damage:
        return f"can't be read: {file.damage}"
    if file.target:
        return _no_module(file.target, package)
    if file.name is None:
        based = "defaults" in file.values
        return None if based else "names nothing: it needs name: NAME"
    kind = file.path.parent.name
    group = _GROUPS[kind]
    registered = {point.name for point in points(group)}
    names = {_File.read(path).name for path in (ours / kind).glob("*.yaml")}
    if file.name in registered | names:
        return None
    line = f'{file.name} = "{package.name}.MODULE"'
    return (
        f"names the {kind} {file.name!r}, which no module registers: its project needs {line} "
        f'under [project.entry-points."{group}"]'
    )


def _no_module(target: str, package: Package) -> str | None:
    """Of ``garden.flowers.Flowers``: whether there is a file ``garden/flowers.py``."""
    first, *inner = target.split(".")
    if first != package.name or len(inner) < 2 or package.folder is None:
        return None
    module = package.folder / inner[0]
    if module.is_dir() or module.with_suffix(".py").is_file():
        return None
    return f"names {target}, but there is no {module.with_suffix('.py')}"
