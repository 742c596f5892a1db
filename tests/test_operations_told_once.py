"""What is known of an operation stands in one place, so nobody else names one.

Recordings hold the operations of ATen by name. ``metanet/tracing`` makes them and
``metanet/symmetry/operations`` tells all that is known of each; every other room asks what an
operation means (``Semantics.flow``).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metanet"
TELLING = ("tracing/", "symmetry/operations/")
# Files that still name one, and what for. May only shrink.
REMAINING = {
    "nn/_edge_update.py": "runs one kernel in place of two",
}
FILES = [str(p.relative_to(PACKAGE)) for p in sorted(PACKAGE.rglob("*.py"))]


def operations_named(source: str) -> set[str]:
    """Operations that the code (not its docstrings) names as text or as ``torch.ops``."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {name for node in ast.walk(tree) if id(node) not in prose for name in _named(node)}


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value.startswith(("aten.", "aten::", "torchvision.", "prims.")):
            yield node.value
    elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.ops."):
        yield ast.unparse(node)


@pytest.mark.parametrize("path", [p for p in FILES if not p.startswith(TELLING)])
def test_no_operation_is_named(path):
    named = operations_named((PACKAGE / path).read_text())
    if path in REMAINING:
        assert named, f"{path} names no operation any more: take it off the list"
    else:
        assert not named, f"{path} names {sorted(named)}: ask Semantics.flow"


def test_all_that_remain_are_there():
    assert set(REMAINING) <= set(FILES)


def test_names_are_seen():
    source = '''
"""Prose on "aten.mm"."""
NAMES = {"aten.cat", f"aten.{x}", "atensomething"}
call = torch.ops.aten.relu.default
'''
    seen = operations_named(source)
    assert seen == {
        "aten.cat",
        "aten.",
        "torch.ops.aten",
        "torch.ops.aten.relu",
        "torch.ops.aten.relu.default",
    }
