"""How the package is built: what imports what, and how dense the code reads, room by room.

    python benchmarks/structure.py [FOLDER=metanet]        prints Markdown, as in docs/architecture

Imports inside functions and for type checkers count as well. Density is counted over the bodies of
functions, docstrings left out.
"""

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.While, ast.BoolOp, ast.IfExp, ast.comprehension, ast.match_case)
# names that say nothing of what they name
PRONOUNS = frozenset(
    """found each given own known left rest kept chosen wanted more made said told taken""".split()  # noqa: SIM905
)


@dataclass
class Density:
    """Counts of one or several files.

    >>> total = Density(files=1, lines=120) + Density(files=1, lines=80)
    >>> total.lines / total.files
    100.0
    """

    files: int = 0
    lines: int = 0
    long: int = 0
    comments: int = 0
    skips: int = 0
    functions: int = 0
    body: int = 0
    branches: int = 0
    names: int = 0
    pronouns: int = 0
    public: int = 0
    documented: int = 0

    def __add__(self, other: "Density") -> "Density":
        return Density(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def row(self, room: str) -> str:
        """A row of the table."""
        cells = (
            room,
            f"{self.files}",
            f"{self.lines}",
            f"{self.lines / self.files:.0f}",
            f"{self.body / max(1, self.functions):.1f}",
            f"{100 * self.branches / max(1, self.body):.1f}",
            f"{100 * self.comments / self.lines:.1f}",
            f"{100 * self.long / self.lines:.1f} %",
            f"{100 * self.pronouns / max(1, self.names):.1f} %",
            f"{100 * self.documented / max(1, self.public):.0f} %",
            f"{self.skips}",
        )
        return f"| {' | '.join(cells)} |"


HEADER = (
    "| room | files | lines | lines/file | lines/body | branches/100 | comments/100 | over 100 | pronouns "
    "| documented | skips |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def density(path: Path) -> Density:
    """The counts of one file."""
    text = path.read_text()
    lines = text.splitlines()
    counts = Density(files=1, lines=len(lines), skips=text.count("fmt: skip"))
    counts.comments = sum(line.lstrip().startswith("#") for line in lines)
    counts.long = sum(len(line) > 100 for line in lines)
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    inner = {id(child) for node in functions for child in ast.walk(node) if child is not node}
    for function in functions:
        public = not function.name.startswith("_")
        counts.public += public
        counts.documented += public and ast.get_docstring(function) is not None
        if id(function) not in inner:  # a nested one counts with the outermost
            _count_body(function, counts)
    return counts


def _count_body(function: ast.FunctionDef | ast.AsyncFunctionDef, counts: Density) -> None:
    body = function.body[ast.get_docstring(function) is not None :]
    if not body:
        return
    counts.functions += 1
    counts.body += (body[-1].end_lineno or 0) - body[0].lineno + 1
    for node in (node for statement in body for node in ast.walk(statement)):
        counts.branches += isinstance(node, BRANCHES)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            counts.names += 1
            counts.pronouns += node.id.rstrip("_") in PRONOUNS


def module_of(path: Path, root: Path) -> str:
    """The dotted name of a file; that of its folder for an ``__init__.py``."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path, modules: set[str]) -> Iterator[str]:
    """Modules of the package that a file imports."""
    module = module_of(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            base = f"{base}.{node.module}" if node.level and node.module else (node.module or base)
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in modules else base for name in inner]
        else:
            continue
        yield from (name for name in names if name in modules and name != module)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Sets of files each of which leads to all the others (Tarjan 1972).

    A package's ``__init__`` is no file here.

    >>> circles({"a": {"b"}, "b": {"a"}, "c": {"a"}})
    [['a', 'b']]
    """
    reach = {name: _reached(name, arrows) for name in arrows}
    rings = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in arrows
        if name in reach[name]
    }
    return sorted(map(list, rings))


def _reached(start: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = [start]
    while stack:
        for name in arrows.get(stack.pop(), ()):
            if name not in seen:
                seen.add(name)
                stack.append(name)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default="metanet", type=Path)
    root = parser.parse_args().folder.resolve()
    paths = {module_of(path, root): path for path in sorted(root.rglob("*.py"))}
    modules = set(paths)
    rooms: dict[str, Density] = defaultdict(Density)
    files: dict[str, set[str]] = {}
    between: set[tuple[str, str]] = set()
    private: list[str] = []
    for module, path in paths.items():
        room = _room(module)
        rooms[room if (root / room).is_dir() else "."] += density(path)
        files[module] = set(imports(path, root, modules))
        for other in files[module]:
            if _room(other) not in (room, "."):
                between.add((room, _room(other)))
                if any(part.startswith("_") for part in other.split(".")[2:]):
                    private.append(f"{module} imports {other}")
    inner = {name for name, path in paths.items() if path.name != "__init__.py"}
    rings = circles({name: files[name] & inner for name in inner})
    print(f"- arrows between rooms: {len(between)}")
    print(f"- arrows between files: {sum(map(len, files.values()))}")
    print(
        f"- circles of files: {len(rings)}", *(f"  - {', '.join(ring)}" for ring in rings), sep="\n"
    )
    print(
        f"- private imports across rooms: {len(private)}",
        *(f"  - {line}" for line in private),
        sep="\n",
    )
    print(f"\n{HEADER}")
    for room, counts in sorted(rooms.items()):
        print(counts.row(room))
    print(sum(rooms.values(), Density()).row("all"))


def _room(module: str) -> str:
    """The folder under the package; the package itself is a room, files beside the folders are theirs.

    >>> _room("metanet.graph._walk"), _room("metanet.errors"), _room("metanet")
    ('graph', 'errors', '.')
    """
    return module.split(".")[1] if "." in module else "."


if __name__ == "__main__":
    main()
