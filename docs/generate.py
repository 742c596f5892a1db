"""Pages that are made from the code: the reference of every public name, and the values of every command.

``docs/conf.py`` calls :func:`write_all` before each build; what it writes is not in git.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path

import yaml
from sphinx.addnodes import pending_xref

from metanet.registry import Registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "metanet"
CONF = ROOT / "conf"

# ---------------------------------------------------------------- public names


def rooms() -> list[str]:
    """Every public module of the package, ``metanet`` itself first."""
    folders = [p.parent.name for p in PACKAGE.glob("*/__init__.py")]
    files = [p.stem for p in PACKAGE.glob("*.py")]
    names = sorted(n for n in {*folders, *files} if not n.startswith("_") and n != "cli")
    return ["metanet", *(f"metanet.{name}" for name in names)]


def public_names(module: str) -> list[str]:
    """What a room offers: its ``__all__``, or what its file re-exports (``import x as x``) and defines."""
    room = importlib.import_module(module)
    if hasattr(room, "__all__"):
        return sorted(room.__all__)
    path = Path(inspect.getsourcefile(room))
    names = set(_exported(ast.parse(path.read_text(encoding="utf-8")), path.name == "__init__.py"))
    return sorted(name for name in names if not _is_module(module, name))


def _exported(tree: ast.Module, is_package: bool) -> Iterator[str]:
    conditional = [inner for node in tree.body if isinstance(node, ast.If) for inner in node.body]
    for node in [*tree.body, *conditional]:
        if isinstance(node, ast.ImportFrom) and is_package:
            yield from (alias.name for alias in node.names if alias.asname == alias.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (target.id for target in targets if isinstance(target, ast.Name))
            yield from (name for name in names if re.fullmatch(r"[A-Z][A-Z_]+", name))


def _is_module(module: str, name: str) -> bool:
    return inspect.ismodule(getattr(importlib.import_module(module), name))


@cache
def homes() -> dict[str, str]:
    """Names of an object -> the one under which its room documents it.

    ``metanet.graph._template.GraphTemplate`` (as annotations say it) and ``metanet.GraphTemplate`` are
    both ``metanet.graph.GraphTemplate``.
    """
    documented: dict[str, str] = {}
    for module in rooms()[1:]:
        for name in public_names(module):
            defined = _defined_as(getattr(importlib.import_module(module), name))
            if defined is not None:
                documented.setdefault(defined, f"{module}.{name}")
    room = importlib.import_module("metanet")
    for name in public_names("metanet"):
        documented[f"metanet.{name}"] = documented[_defined_as(getattr(room, name))]
    return documented


def _defined_as(thing) -> str | None:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return None
    return f"{thing.__module__}.{thing.__qualname__}"


def _exists(target: str) -> bool:
    """Whether a dotted name stands for something, public or not."""
    module, _, name = target.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return "." in module and _exists(module)


def public_home(app, env, node, contnode):
    """Where a reference leads that Sphinx finds nothing for.

    What users can import leads to its room's page; what is a room's own affair, and type variables,
    stay text. Anything else is an error in a docstring.
    """
    target = node.get("reftarget", "")
    if home := homes().get(target):
        domain = env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, contnode)
    return contnode if target.startswith("metanet.") and _exists(target) else None


def readable_signature(app, what, name, thing, options, signature, returns):
    """``<factory>`` and other defaults without a literal, which Sphinx can't parse, become ``...``."""
    return re.sub(r"= ?<[^<>]*>", "= ...", signature or "") or None, returns


def leave_builtins_alone(app, doctree) -> None:
    """``type`` in an annotation is Python's, not the attribute ``type`` of one of our classes."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("reftarget") == "type":
            node.replace_self(node.children)


def reference_page(module: str) -> str:
    """One room's page, in reStructuredText, as autodoc speaks it."""
    title = f"``{module}``"
    lines = [f".. _{module}:", "", title, "=" * len(title), "", f".. automodule:: {module}", ""]
    lines += [f".. currentmodule:: {module}", ""]
    room = importlib.import_module(module)
    for name in public_names(module):
        thing = getattr(room, name)
        if module == "metanet":
            lines += [f"- :py:obj:`metanet.{name} <{homes()[f'metanet.{name}']}>`"]
        elif inspect.isclass(thing):
            lines += [f".. autoclass:: {module}.{name}", "   :members:", ""]
        elif inspect.isroutine(thing):
            lines += [f".. autofunction:: {module}.{name}", ""]
        else:
            lines += [f".. py:data:: {name}", "", *_indented(_described(module, name, thing)), ""]
    return "\n".join([*lines, ""])


def _described(module: str, name: str, thing) -> str:
    """The text under a constant's definition; of a registry also what is in it."""
    text = docstring_of_data(module, name)
    if not isinstance(thing, Registry):
        return text
    rows = [f"- ``{key}``: {thing.summary(key)}" for key in thing.choices()]
    return "\n".join([text, "", "A :class:`~metanet.registry.Registry` of:", "", *rows])


def docstring_of_data(module: str, name: str) -> str:
    """The string that stands under ``NAME = ...`` in the file that defines it; empty without one."""
    for path in _files_of(module):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, after in pairwise([*body, ast.Pass()]):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            text = getattr(getattr(after, "value", None), "value", None)
            if name in names and isinstance(after, ast.Expr) and isinstance(text, str):
                return inspect.cleandoc(text)
    return ""


def _files_of(module: str) -> list[Path]:
    path = Path(str(inspect.getsourcefile(importlib.import_module(module))))
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _indented(text: str) -> list[str]:
    return [f"   {line}".rstrip() for line in text.splitlines()]


# ---------------------------------------------------------------- commands

COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "command")
_KEY = re.compile(
    r"(?P<indent> *)(?P<key>[\w.]+): *(?P<value>(?:'[^']*'|\"[^\"]*\"|[^#])*?)(?: *# ?(?P<words>.*))?"
)
_CHOICE = re.compile(r" *- (?P<group>\w+): (?P<name>\w+)(?: *# ?(?P<words>.*))?")


@dataclass
class Value:
    """One key of a configuration file."""

    key: str
    value: str
    words: list[str] = field(default_factory=list)

    def row(self) -> str:
        meaning = re.sub(r"([|*_<>])", r"\\\1", " ".join(self.words))
        value = {"???": "must be given"}.get(self.value, f"`{self.value}`" if self.value else "")
        return f"| `{self.key}` | {value.replace('|', chr(92) + '|')} | {meaning} |"


def summary_of(path: Path) -> str:
    """The comment at a file's top."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line[1:].strip() for line in comment if "@package" not in line)


def values_of(path: Path) -> list[Value]:
    """The keys of a file with their defaults and comments, those of Hydra's own affairs left out."""
    values: list[Value] = []
    outer: list[tuple[int, str]] = []  # the keys around a line, with their indentation
    for line in path.read_text(encoding="utf-8").splitlines():
        if values and line.startswith(" ") and line.strip().startswith("#"):
            values[-1].words.append(line.strip("# "))
            continue
        match = _KEY.fullmatch(line)
        if match is None:
            continue
        outer = [entry for entry in outer if entry[0] < len(match["indent"])]
        outer.append((len(match["indent"]), match["key"]))
        key = ".".join(name for _, name in outer)
        if outer[0][1] in ("hydra", "defaults", "paths") or match["key"] == "_target_":
            continue
        if key == "name" and match["words"] is None:  # what the file itself is named
            continue
        values.append(Value(key, match["value"], [match["words"]] if match["words"] else []))
    return values


def choices_of(path: Path) -> dict[str, tuple[str, str]]:
    """The groups of a command: what is chosen, and the comment."""
    matches = (_CHOICE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {m["group"]: (m["name"], m["words"] or "") for m in matches if m}


def examples_of(path: Path) -> list[str]:
    """The lines of a command's help that one can type."""
    header = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["help"]["header"]
    _, *lines = re.sub(r"\\\n *", "", header).splitlines()
    return [line.strip() for line in lines if line.strip()]


def table(values: list[Value]) -> list[str]:
    if not values:
        return []
    return [
        "| value | default | meaning |",
        "|---|---|---|",
        *(value.row() for value in values),
        "",
    ]


def command_page(command: str) -> str:
    """What a command's file says of it, as Markdown."""
    path = CONF / f"{command}.yaml"
    sentence = summary_of(path).removeprefix(f"metanet {command}: ")
    own = values_of(path)
    keys = {value.key for value in own}
    shared = [value for value in values_of(CONF / "command.yaml") if value.key not in keys]
    lines = [f"# metanet {command}", "", sentence[0].upper() + sentence[1:], ""]
    lines += ["```text", *examples_of(path), "```", ""]
    lines += table([*own, *shared])
    for group, (name, words) in choices_of(path).items():
        others = sorted(p.stem for p in (CONF / group).glob("*.yaml"))
        links = ", ".join(f"[`{other}`](groups/{group}.md#{group}-{other})" for other in others)
        comment = f": {words}" if words else ""
        lines += [f"`{group}={name}`{comment}", f": choices: {links}", ""]
    return "\n".join(lines)


def group_page(group: str) -> str:
    """Every choice of a group with its values."""
    users = [command for command in COMMANDS if group in choices_of(CONF / f"{command}.yaml")]
    commands = ", ".join(f"[`metanet {command}`](../{command}.md)" for command in users)
    lines = [f"# {group}=", "", f"The group `{group}` of {commands}.", ""]
    for path in sorted((CONF / group).glob("*.yaml")):
        lines += [f"({group}-{path.stem})=", f"## {group}={path.stem}", "", summary_of(path), ""]
        parents = [p for p in yaml.safe_load(path.read_text()).get("defaults", []) if p != "_self_"]
        based = [f"[`{p}`](#{group}-{p})" for p in parents if isinstance(p, str)]
        lines += [f"Everything else as in {', '.join(based)}.", ""] if based else []
        lines += table(values_of(path))
    return "\n".join(lines)


# ---------------------------------------------------------------- all of it


def groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def groups_page() -> str:
    """The page above those of the groups."""
    lines = ["# Groups", "", "What can be chosen by name in commands, `GROUP=NAME`.", ""]
    names = [f"groups/{group}" for group in groups()]
    lines += ["```{toctree}", ":maxdepth: 2", "", *names, "```", ""]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Every generated page by its path."""
    made = {f"api/{module}.rst": reference_page(module) for module in rooms()}
    made |= {f"commands/{command}.md": command_page(command) for command in COMMANDS}
    made |= {f"commands/groups/{group}.md": group_page(group) for group in groups()}
    return made | {"commands/groups.md": groups_page()}


def write_all(folder: Path) -> None:
    """Write what changed, and remove what is no more."""
    made = pages()
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        if str(path.relative_to(folder)) not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
