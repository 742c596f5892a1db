"""Plugins that can't be used: each fault is told with the package and the file, and all else works."""

import sys
import warnings

import pytest

from metanet import plugins
from metanet.alignment import MATCHERS
from metanet.config import build, conf_dir, conf_dirs, conf_file
from metanet.errors import MetanetError
from metanet.merging import METHODS
from metanet.nn import MODELS
from metanet.registry import PluginWarning, Registry
from metanet.tasks import TASKS
from metanet.zoo import ZOOS

from .conftest import plant

NEAR = """
from metanet.alignment import Match, matcher
@matcher("near")
def near(problem, *, power: float = 1.0):
    "Stays where it is."
    return Match(problem.spec.identity(), (0.0,))
"""
YAML = {"conf/matcher/near.yaml": "name: near\npower: 1.0\n"}
POINT = {"metanet.matchers": {"near": "weeds.near"}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of installed packages; what they register is gone afterwards."""
    for registry in (MATCHERS, METHODS, MODELS, TASKS, ZOOS):
        list(registry)  # ours are found now, and stay
        for table in ("_entries", "_homes", "_failures"):
            monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
        monkeypatch.setattr(registry, "_plugins_are_here", False)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.forget()
    yield tmp_path
    monkeypatch.undo()
    plugins.forget()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def faults():
    return plugins.problems(conf_dir())


def test_nothing_is_wrong_with_a_good_one(place):
    package = plant(place, "weeds", POINT, {"near.py": NEAR, **YAML})
    assert faults() == []
    assert "near" in MATCHERS and MATCHERS.find("near").options == {"power": 1.0}
    assert MATCHERS.is_installed("near")
    assert conf_dirs() == (conf_dir(), package / "conf")
    assert conf_file("matcher", "near") == package / "conf" / "matcher" / "near.yaml"


# ---------------------------------------------------------------- code


BROKEN = [
    ("1 / 0\n", "near.py, line 1): ZeroDivisionError: division by zero"),
    ("import no_such_module\n", "near.py, line 1): ModuleNotFoundError: No module named 'no_such"),
    ("def near(:\n", "near.py, line 1): SyntaxError: invalid syntax"),
    ("", "near.py registers no matcher named 'near'"),
    (NEAR.replace('"near"', '"far"'), "near.py registers no matcher named 'near'"),
    (NEAR.replace('"near"', '"weight"'), "there are two matchers named 'weight'"),
    (
        NEAR.replace("problem, *, power: float = 1.0", ""),
        "it must take (problem, *, option=default",
    ),
    (
        NEAR.replace(", *, power: float = 1.0", ", power"),
        "it must take (problem, *, option=default",
    ),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_code_that_cannot_be_used_is_told_once_and_where_it_is_asked_for(place, text, message):
    plant(place, "weeds", POINT, {"near.py": text, **YAML}, distribution="green-weeds")
    with pytest.warns(PluginWarning) as caught:
        choices = MATCHERS.choices()
    (told,) = [str(warning.message) for warning in caught]
    assert told.startswith("plugin 'near' of package green-weeds (") and message in told
    assert str(place / "weeds" / "near.py") in told
    assert "weight" in choices and "near" not in choices
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        with pytest.raises(MetanetError) as error:
            MATCHERS.find("near")
    assert message in str(error.value)
    assert str(error.value).startswith("matcher 'near' can't be used: plugin 'near' of package")


def test_a_module_that_is_not_there(place):
    plant(place, "weeds", POINT, YAML)
    with pytest.warns(PluginWarning, match=r"package weeds \(weeds.near\): ModuleNotFoundError"):
        assert "near" not in MATCHERS


def test_a_name_of_ours_is_taken(place):
    plant(place, "weeds", {"metanet.matchers": {"weight": "weeds.near"}}, {"near.py": NEAR})
    ours = MATCHERS["weight"]
    with pytest.warns(
        PluginWarning, match=r"'weight' is taken by a matcher in .*matchers/weight.py"
    ):
        MATCHERS.choices()
    assert MATCHERS["weight"] is ours


def test_two_packages_with_one_name_for_their_matchers(place):
    plant(place, "herbs", {"metanet.matchers": {"near": "herbs.near"}}, {"near.py": NEAR, **YAML})
    plant(place, "weeds", POINT, {"near.py": NEAR, **YAML})
    with pytest.warns(
        PluginWarning, match=r"package weeds .*'near' is taken by a matcher in .*herbs"
    ):
        assert "near" in MATCHERS.choices()
    assert MATCHERS.home("near").startswith(str(place / "herbs"))
    (told,) = faults()
    assert told.startswith("plugin package weeds (of weeds): ")
    assert "near.yaml is not used, as " in told and str(place / "herbs" / "conf") in told


def test_a_broken_package_does_not_hide_a_good_one_of_the_same_name(place):
    plant(place, "herbs", {"metanet.matchers": {"near": "herbs.near"}}, {"near.py": "1 / 0\n"})
    plant(place, "weeds", POINT, {"near.py": NEAR})
    with pytest.warns(PluginWarning, match="package herbs"):
        assert MATCHERS.find("near").name == "near"


def test_half_a_module_leaves_nothing(place):
    plant(place, "weeds", POINT, {"near.py": NEAR + "\n1 / 0\n"})
    with pytest.warns(PluginWarning, match="ZeroDivisionError"):
        assert "near" not in MATCHERS


def test_what_a_failing_package_imported_rightly_stays(place):
    """``first`` fails after it imported ``near``, which is a plugin of its own."""
    points = {"metanet.matchers": {"first": "weeds.first", "near": "weeds.near"}}
    plant(place, "weeds", points, {"first.py": "import weeds.near\n1 / 0\n", "near.py": NEAR})
    with pytest.warns(PluginWarning, match="'first'"):
        assert "near" in MATCHERS.choices()


DEAF = "class X(m.NeuralMetanet):\n def __init__(self): ..."
SIGNATURES = [
    (METHODS, "methods", "metanet.merging", "method", "def x(part, alpha): ...", "must take (part"),
    (MODELS, "models", "metanet.nn", "register", "class X: ...", "is no metanetwork"),
    (MODELS, "models", "metanet.nn", "register", DEAF, "must take out_dim"),
    (TASKS, "tasks", "metanet.tasks", "register", "class X: ...", "is no task"),
    (ZOOS, "zoos", "metanet.zoo", "register", "class X: ...", "is no zoo"),
]  # fmt: skip


@pytest.mark.untyped
@pytest.mark.parametrize(("registry", "group", "room", "decorator", "body", "message"), SIGNATURES)
def test_wrong_signatures(place, registry, group, room, decorator, body, message):
    text = f"import {room} as m\n@m.{decorator}('x')\n{body}\n"
    plant(place, "weeds", {f"metanet.{group}": {"x": "weeds.x"}}, {"x.py": text})
    with pytest.warns(PluginWarning) as caught:
        registry.choices()
    (told,) = [str(warning.message) for warning in caught]
    assert message in told and "weeds/x.py, line 2" in told


# ---------------------------------------------------------------- configuration files


def test_code_without_a_file(place):
    plant(place, "weeds", POINT, {"near.py": NEAR, "conf/matcher/far.yaml": "defaults: [weight]\n"})
    (told,) = faults()
    assert told.startswith("plugin package weeds (of weeds): weeds.near has no configuration file")
    assert "matcher=near: add" in told and told.endswith("weeds/conf/matcher/near.yaml")


def test_a_folder_that_is_missing(place):
    plant(place, "weeds", POINT, {"near.py": NEAR})
    (told,) = faults()
    assert f"there is no folder {place / 'weeds' / 'conf'}" in told and "matcher=near" in told


FILES = [
    ("matcher/far.yaml", "name: far\n", "names the matcher 'far', which no module registers"),
    ("matcher/far.yaml", "power: 1\n", "names nothing: it needs name: NAME"),
    ("matcher/far.yaml", "{\n", "can't be read: while parsing"),
    ("zoo/far.yaml", "_target_: weeds.far.Far\n", "names weeds.far.Far, but there is no"),
    ("matcher/weight.yaml", "name: near\n", "is not used, as"),
    ("train.yaml", "seed: 1\n", "is not used, as"),
]


@pytest.mark.parametrize(("name", "text", "message"), FILES)
def test_a_file_that_leads_nowhere(place, name, text, message):
    plant(place, "weeds", POINT, {"near.py": NEAR, f"conf/{name}": text, **YAML})
    (told,) = faults()
    assert told.startswith(f"plugin package weeds (of weeds): {place / 'weeds' / 'conf' / name} ")
    assert message in told


@pytest.mark.parametrize(
    "text",
    [
        "name: weight\nrestarts: 9\n",
        "defaults: [weight, _self_]\nrestarts: 9\n",
        "name: near\npower: 3\n",
    ],
)
def test_a_variant_needs_no_code(place, text):
    plant(place, "weeds", POINT, {"near.py": NEAR, "conf/matcher/often.yaml": text, **YAML})
    assert faults() == []


def test_two_distributions_of_one_package(place):
    points = {"metanet.matchers": {"near": "weeds.near"}}
    plant(place, "weeds", points, {"near.py": NEAR, **YAML}, distribution="weeds-one")
    plant(place, "weeds", points, {"near.py": NEAR, **YAML}, distribution="weeds-two")
    (told,) = faults()
    assert told.startswith("plugin package weeds (of weeds-one and weeds-two): more than one has")
    assert str(place / "weeds") in told


# ---------------------------------------------------------------- trust


PLAIN = "class Plain:\n    def __init__(self, size=1):\n        self.size = size\n"


def test_classes_of_installed_plugins_may_be_built(place):
    node = {"_target_": "weeds.plain.Plain", "size": 3}
    files = {"near.py": NEAR, "plain.py": PLAIN}
    package = plant(place, "weeds", {}, files, distribution="other")
    with pytest.raises(MetanetError, match="refused to build _target_ 'weeds.plain.Plain'"):
        build(node)  # on the path, but no plugin
    assert "weeds.plain" not in sys.modules
    plant(package.parent, "weeds", POINT, files)
    plugins.forget()
    assert build(node).size == 3


@pytest.mark.parametrize("module", ["os", "torch", "subprocess"])
def test_an_entry_point_makes_nobody_elses_module_trusted(place, module):
    plant(place, "weeds", {"metanet.matchers": {"x": f"{module}.path"}}, {})
    assert module not in plugins.trusted()
    with pytest.raises(MetanetError, match="refused to build"):
        build({"_target_": f"{module}.path.join"})


def test_a_file_imports_no_module_by_its_name(place):
    """Saved models and recipes ask with ``registry[name]``."""
    registry = Registry("colour", group="metanet.colours")
    (place / "paint.py").write_text("raise RuntimeError('imported')\n")
    assert "paint:red" not in registry and registry.get("paint.red") is None
    assert "paint" not in sys.modules


# ---------------------------------------------------------------- commands


def test_training_goes_on_beside_a_broken_plugin(metanet, site, tmp_path):
    points = {"metanet.models": {"near": "weeds.near"}, "metanet.methods": {"far": "weeds.far"}}
    files = {
        "near.py": "1 / 0\n",
        "conf/model/near.yaml": "name: near\n",
        "conf/method/far.yaml": "name: far\n",
    }
    plant(tmp_path / "broken", "weeds", points, files)
    words = ("zoo=flowers", "task=vigour", "trainer.max_epochs=1", "logger=none", "model.width=4")
    done = metanet("train", "model=gmn", *words, beside=[site, tmp_path / "broken"])
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "weeds" in line]
    assert line.startswith("metanet train: warning: plugin 'near' of package weeds (")
    assert line.endswith("weeds/near.py, line 1): ZeroDivisionError: division by zero")
    done = metanet("train", "model=near", *words[:-1], beside=[site, tmp_path / "broken"])
    assert done.returncode == 1
    assert "can't be used: plugin 'near'" in done.stderr and "Traceback" not in done.stderr
