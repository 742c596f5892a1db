"""A room imports only rooms that stand before it (DESIGN: ground floor first)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metanet"
ORDER = [
    "errors",
    "plugins",
    "registry",
    "documents",
    "progress",
    "config",
    "checkpoints",
    "runs",
    "trust",
    "tracing",
    "symmetry",
    "graph",
    "architecture",
    "verification",
    "testing",
    "sources",
    "evaluation",
    "alignment",
    "merging",
    "landscape",
    "nn",
    "zoo",
    "tasks",
    "_cli",
    "commands",
    "cli",
]
FILES = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]


def names_imported(path: Path) -> set[str]:
    """Modules of the package, and names in them, that a file imports anywhere, inside functions too."""
    parts = ("metanet", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = parts[:-1]
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            names = [module, *(f"{module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        imported |= {n for n in names if n.startswith("metanet.")}
    return imported


def rooms_imported(path: Path) -> set[str]:
    """Rooms that a file imports."""
    return {name.split(".")[1] for name in names_imported(path)} & set(ORDER)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_room_imports_a_higher_one(path):
    room = room_of(path)
    assert room in ORDER, f"a new room: add {room} to ORDER"
    higher = {r for r in rooms_imported(path) if ORDER.index(r) > ORDER.index(room)}
    assert not higher, f"{path.relative_to(PACKAGE)} imports {higher}"


def test_the_check_sees_imports():
    assert rooms_imported(PACKAGE / "tasks/_run.py") >= {"nn", "checkpoints", "config", "errors"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_hold_one_idea(path):
    assert len(path.read_text().splitlines()) <= 400


# ---------------------------------------------------------------- inner doors


def module_of(path: Path) -> str:
    """The dotted name under the package: ``graph._walk``, ``graph`` for its ``__init__``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def modules_imported(path: Path) -> set[str]:
    """Files of the package that a file imports anywhere, inside functions and for type checkers too."""
    names = {name.removeprefix("metanet.") for name in names_imported(path)}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & MODULES


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Sets of files each of which leads to all others of its set."""
    reach = {name: set() for name in arrows}
    for name in arrows:
        stack = [name]
        while stack:
            new = arrows[stack.pop()] - reach[name]
            reach[name] |= new
            stack += new
    rings = [{other for other in reach[name] if name in reach[other]} for name in sorted(arrows)]
    return [ring for i, ring in enumerate(rings) if ring and ring not in rings[:i]]


def test_no_circle_between_files():
    # a package's __init__ gathers the names of its files: it is no file here
    inner = {module_of(path): path for path in FILES if path.name != "__init__.py"}
    arrows = {name: modules_imported(path) & set(inner) for name, path in inner.items()}
    assert circles(arrows) == []


def test_circles_are_seen():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}}
    assert circles(arrows) == [{"a", "b", "c"}, {"e"}]


def private_imports(path: Path) -> set[str]:
    """Files with an underscore that belong to another room."""
    others = {name for name in modules_imported(path) if name.split(".")[0] != room_of(path)}
    return {name for name in others if any(part.startswith("_") for part in name.split(".")[1:])}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_import_across_rooms(path):
    assert not private_imports(path)


def test_private_imports_are_seen(monkeypatch, tmp_path):
    path = tmp_path / "tasks" / "_run.py"
    path.parent.mkdir()
    path.write_text(
        "from ..nn import _readout\nfrom ..nn import load_model\nfrom ._data import Batches\n"
    )
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert private_imports(path) == {"nn._readout"}
