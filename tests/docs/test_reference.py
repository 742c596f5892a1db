"""What the reference shows: every public name says what it is, in one sentence on one line."""

import importlib
import importlib.util
import inspect
import sys

import pytest

from docs.pages import ROOT
from metanet.cli import COMMANDS


def _generate():
    spec = importlib.util.spec_from_file_location(
        "metanet_docs_generate", ROOT / "docs/generate.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses ask for it
    spec.loader.exec_module(module)
    return module


GENERATE = _generate()
NAMES = [(room, name) for room in GENERATE.rooms() for name in GENERATE.public_names(room)]


def docstring(room: str, name: str) -> str:
    thing = getattr(importlib.import_module(room), name)
    if inspect.isclass(thing):
        return inspect.cleandoc(vars(thing).get("__doc__") or "")
    if inspect.isroutine(thing):
        return inspect.getdoc(thing) or ""
    return GENERATE.docstring_of_data(room, name)


def test_there_are_rooms_and_names():
    assert {"metanet.symmetry", "metanet.graph", "metanet.config"} <= set(GENERATE.rooms())
    assert len(NAMES) > 200
    assert ("metanet.graph", "draw") in NAMES  # imported when it is first used
    assert ("metanet.registry", "Entry") not in NAMES  # a type variable


@pytest.mark.parametrize("room", GENERATE.rooms())
def test_each_room_says_what_it_is(room):
    text = inspect.getdoc(importlib.import_module(room))
    assert text
    assert text.partition("\n\n")[0].endswith((".", ":"))


@pytest.mark.parametrize(
    ("room", "name"),
    [each for each in NAMES if each[0] != "metanet"],
)
def test_the_first_line_is_a_sentence(room, name):
    first = docstring(room, name).partition("\n")[0]
    assert first, "no docstring"
    assert first[0].isupper() or first[0] in "`\"('", first
    assert first.endswith((".", ":", "::")), f"a sentence on one line: {first}"


def test_each_page_of_a_command_lists_what_can_be_set():
    pages = GENERATE.pages()
    merge = pages["commands/merge.md"]
    assert "| `out` | must be given | a new folder |" in merge
    assert r"bn\_reset \| repair \| rescale" in merge
    assert "groups/method.md#method-ties" in merge
    assert "`density`" in pages["commands/groups/method.md"]
    assert "metanet zoo zoo=digits_classifiers" in pages["commands/zoo.md"]
    assert set(GENERATE.COMMANDS) == set(COMMANDS)
