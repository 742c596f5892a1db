"""What a ``_target_`` takes: its parameters with their annotations, without calling it.

Of packages that take seconds to import, the sources are read instead: a mistake in
``trainer.max_epochs`` is told before lightning is there.
"""

import ast
import functools
import importlib.util
import inspect
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_ONLY = frozenset({"lightning"})
"""Top packages whose sources are read rather than imported."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: what it is annotated with (``Any`` where that can't be told), and whether it
    must be given."""

    kind: Any
    required: bool


def parameters_of(function: Callable) -> dict[str, Parameter] | None:
    """Of a function, or of a class' constructor; ``None`` where any keyword is taken, or nothing is
    known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return None
    annotated: Any = function
    kinds = _hints(annotated.__init__ if isinstance(function, type) else annotated)
    return {
        p.name: Parameter(kinds.get(p.name, Any), p.default is p.empty)
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"
    }


def read_parameters(target: str) -> dict[str, Parameter] | None:
    """Of a class or function by its dotted name, from its source; ``None`` where that doesn't show
    them."""
    package, *names = target.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not names:
        return None
    root = Path(spec.origin).parent.parent
    node = _definition(root, target.split("."))
    if isinstance(node, ast.ClassDef):
        node = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
    if not isinstance(node, ast.FunctionDef) or node.args.kwarg is not None:
        return None
    positional = [*node.args.posonlyargs, *node.args.args]
    free = len(positional) - len(node.args.defaults)
    parameters = {
        arg.arg: Parameter(_read(arg.annotation), at < free) for at, arg in enumerate(positional)
    }
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        parameters[arg.arg] = Parameter(_read(arg.annotation), default is None)
    parameters.pop("self", None)
    return parameters


def _hints(function: Callable) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # annotations may name anything
        return {}


def _definition(root: Path, names: list[str]) -> ast.AST | None:
    """Where ``lightning.pytorch.Trainer`` is defined: down the folders, then along ``from ...
    import``."""
    source, inside = _source(root, names)
    if not source.is_file() or len(inside) != 1:
        return None
    name = inside[0]
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == name:
                return node
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                before = {alias.asname or alias.name: alias.name for alias in reversed(aliases)}
                if name in before:
                    return _definition(root, [*module.split("."), before[name]])
    return None


def _source(root: Path, names: list[str]) -> tuple[Path, list[str]]:
    """The file that dotted names lead to, and the names inside it."""
    folder, inside = root, list(names)
    while inside and (folder / inside[0]).is_dir():
        folder /= inside.pop(0)
    if inside and (folder / f"{inside[0]}.py").is_file():
        return folder / f"{inside[0]}.py", inside[1:]
    return folder / "__init__.py", inside


class _Class:
    """Stands for a class that a source names and that no configuration can write down."""


_PLAIN: dict[str, Any] = {
    kind.__name__: kind for kind in (bool, int, float, str, list, dict, tuple)
}
_PLAIN |= {"Sequence": list, "Iterable": list, "Mapping": dict, "None": type(None)}


def _read(annotation: ast.expr | None) -> Any:
    """An annotation's source as the kind it stands for: ``Optional[Union[int, Logger]]`` is ``int |
    _Class | None``."""
    match annotation:
        case ast.Constant(value=None):
            return type(None)
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name]
        case ast.Name(id=name) | ast.Attribute(attr=name):
            is_class = name != "Any" and name[:1].isupper()  # _PRECISION is an alias of many
            return _Class if is_class else Any
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _read(left) | _read(right)
        case ast.Subscript(value=ast.Name(id=name), slice=inner):
            return _subscript(name, inner.elts if isinstance(inner, ast.Tuple) else [inner])
    return Any


def _subscript(name: str, parts: list[ast.expr]) -> Any:
    if name == "Literal":
        return typing.Literal[tuple(part.value for part in parts if isinstance(part, ast.Constant))]
    kinds = tuple(map(_read, parts))
    if name in ("Union", "Optional"):
        kinds = (*kinds, type(None)) if name == "Optional" else kinds
        return functools.reduce(operator.or_, kinds)
    outer = _PLAIN.get(name, Any)
    return outer[kinds[0]] if outer is list else outer
