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
    "cli",
]
FILES = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]


def rooms_imported(path: Path) -> set[str]:
    """Rooms that a file imports anywhere, inside functions too."""
    parts = ("metanet", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            names = [module, *(f"{module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("metanet.")}
    return found & set(ORDER)


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
