"""One register for everything that has a name: names, choices, and files of one's own."""

import sys

import pytest

from metanet.errors import MetanetError
from metanet.registry import Registry


@pytest.fixture
def colours():
    """A registry of functions, with one entry."""
    registry = Registry("colour")

    def red():
        """Of blood.

        And of roses.
        """

    registry.add("red", red)
    return registry


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_is_a_mapping(colours):
    assert list(colours) == ["red"] and len(colours) == 1 and "red" in colours
    assert "blue" not in colours and colours.get("blue") is None
    assert colours["red"] is colours.find("red")
    with pytest.raises(KeyError):
        colours["blue"]


def test_a_name_is_given_once(colours):
    with pytest.raises(
        MetanetError, match=r"two colours named 'red': in .*test_registry.py and in"
    ):
        colours.add("red", colours.find)
    assert colours.find("red").__name__ == "red"


@pytest.mark.untyped
@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_text(colours, name):
    with pytest.raises(MetanetError, match="give it a name"):
        colours.add(name, colours.find)


@pytest.mark.untyped
def test_errors_list_the_choices(colours):
    with pytest.raises(MetanetError, match=r"no colour 'rde'; did you mean 'red'\? Choices: red"):
        colours.find("rde")
    with pytest.raises(MetanetError, match=r"no colour 17\. Choices: red"):
        colours.find(17)


def test_describes_itself(colours):
    assert colours.summary("red") == "Of blood."
    assert colours.describe() == "red  Of blood."
    assert repr(colours) == "Registry('colour': red)"


def test_ours_are_found_in_their_package(folder):
    package = folder / "shades"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from metanet.registry import Registry\nSHADES = Registry('shade', package='shades')\n"
    )
    (package / "dark.py").write_text("from shades import SHADES\nSHADES.add('dark', print)\n")
    (package / "_helper.py").write_text("raise RuntimeError('not to be imported')\n")
    from shades import SHADES  # made above

    assert SHADES.choices() == ["dark"]


def own(folder, name, text):
    package = folder / "mine"
    package.mkdir(exist_ok=True)
    (package / f"{name}.py").write_text(text)


ONE = """
from test_registry_target import COLOURS
def blue(): "Of the sky."
COLOURS.add("blue", blue)
"""


@pytest.fixture
def target(folder):
    """A registry that files in a folder can import."""
    (folder / "test_registry_target.py").write_text(
        "from metanet.registry import Registry\nCOLOURS = Registry('colour')\n"
    )
    from test_registry_target import COLOURS

    return COLOURS


def test_a_file_of_ones_own_by_its_module(folder, target):
    own(folder, "sky", ONE)
    assert target.find("mine.sky").__name__ == "blue"
    assert target.find("mine.sky") is target.find("mine.sky:blue") is target.find("blue")


def test_a_file_with_several_is_asked_which(folder, target):
    own(folder, "two", ONE + "def green(): ...\nCOLOURS.add('green', green)\n")
    with pytest.raises(
        MetanetError, match=r"registers 2 colours: name one of mine.two:blue, mine.two:green"
    ):
        target.find("mine.two")
    with pytest.raises(
        MetanetError, match=r"registers none named 'red': name one of mine.two:blue"
    ):
        target.find("mine.two:red")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine/bad.py registers no colour"),
        (
            "import no_such_package\n",
            "mine.bad: it needs the module no_such_package, which is not installed",
        ),
        ("1 / 0\n", "mine.bad: its import failed: ZeroDivisionError"),
        (ONE.replace("blue", "red") * 2, "two colours named 'red'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(folder, target, text, message):
    own(folder, "bad", text)
    with pytest.raises(MetanetError, match=message):
        target.find("mine.bad")


def test_a_module_that_is_not_there_lists_the_choices(target):
    with pytest.raises(
        MetanetError, match=r"no colour 'nobody.here'.*Choices: none.*no module nobody"
    ):
        target.find("nobody.here")


def test_a_word_alone_imports_nothing(folder, target):
    (folder / "sky.py").write_text(ONE)
    with pytest.raises(MetanetError, match="there is no colour 'sky'"):
        target.find("sky")
    assert target.find("sky:blue").__name__ == "blue"
