"""The page on the house lists every room in its order, and the laws that tests are named after."""

import ast
import re

from docs.pages import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()


def order() -> list[str]:
    """The rooms, ground floor first."""
    tree = ast.parse((ROOT / "tests/test_rooms.py").read_text())
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ORDER"
    )
    return ast.literal_eval(value)


def test_rooms_stand_on_each_other_as_on_the_page():
    rows = [line for line in PAGE.splitlines() if re.match(r"\| `[\w.]+/?`", line)]
    rooms = [re.findall(r"`([\w.]+?)(?:\.py|/)?`", row.split("|")[1]) for row in rows]
    listed = [room for row in rooms for room in row]
    assert sorted(listed) == sorted(order())
    floors = order()
    heights = [max(floors.index(room) for room in row) for row in rooms]
    assert heights == sorted(heights, reverse=True)


def test_laws_are_those_that_tests_hold():
    _, _, laws = PAGE.partition("## Laws")
    numbers = re.findall(r"^(\d)\. \*\*", laws.partition("\n## ")[0], re.M)
    assert numbers == [str(k) for k in range(1, 9)]
    named = {
        n
        for path in ROOT.glob("tests/**/*.py")
        for n in re.findall(r"_law_(\d)_", path.read_text())
    }
    assert set("123456") <= named <= set(numbers)
