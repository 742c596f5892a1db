"""The REF grammar: what is found, and what is said when nothing is."""

import subprocess
import sys

import pytest
from torch import nn

from metanet.errors import MetanetError
from metanet.sources import load_factory, load_source
from metanet.sources._reference import SCHEMES, scheme

NETWORKS = """
from torch import nn

WIDTH = 3

def mlp(width=4, *, depth: int = 1) -> nn.Module:
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))

def needs(width):
    return nn.Linear(width, width)

def passes_on(**options):
    return mlp(**options)

def broken(width=4):
    return 1 + "1"

def no_network():
    return 3

def looks_at_values():
    made = nn.Linear(2, 2)
    made.scale = made.weight.norm().item()
    return made

class Family:
    @classmethod
    def small(cls):
        return nn.Linear(1, 1)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's own, under a name that no other test has imported."""
    name = f"networks_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "small.py").write_text(NETWORKS)
    (tmp_path / name / "needy.py").write_text("import not_installed_anywhere\n")
    (tmp_path / name / "faulty.py").write_text("raise ValueError('at import')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_loads_a_factory(package):
    assert load_factory(f"{package}.small:mlp").__name__ == "mlp"
    assert load_factory("torch.nn:Linear") is nn.Linear


def test_makes_the_network_with_its_arguments(package):
    assert len(load_source(f"{package}.small:mlp", depth=3, width=2)) == 3
    assert isinstance(load_source(f"{package}.small:Family.small"), nn.Linear)
    assert isinstance(load_source("torch.nn:Linear", in_features=1, out_features=2), nn.Linear)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("{p}.small:mpl", r"{p}.small has no mpl; did you mean mlp\?"),
        ("{p}.small:qqqq", r"has no qqqq; it has Family, WIDTH, broken"),
        ("{p}.small:Family.big", "Family has no big; it has small"),
        ("{p}.small:WIDTH", "is int, expected a function or class"),
        ("{p}.large:mlp", r"there is no module {p}.large.*{p}/large.py"),
        ("not_a_package_here:mlp", "there is no module not_a_package_here. Install"),
        ("{p}.needy:mlp", "needs the module not_installed_anywhere, which is not installed"),
        ("{p}.faulty:mlp", "importing {p}.faulty failed: ValueError: at import"),
        (
            "{p}.small",
            r"names no network. REF is timm:NAME, hf:ID-OR-FOLDER, package.module:factory, or a folder",
        ),
        ("{p}.small:", "names no network"),
        (":mlp", "names no network"),
        ("a b:mlp", "names no network"),
        ("{p}.small:mlp()", "names no network"),
        ("", "names no network"),
        (None, "expected a reference to a network, got None"),
        ("timm:", "names no network"),
        ("hf:", "names no network"),
    ],
)
def test_says_what_is_wrong_with_a_reference(ref, message, package):
    ref = ref and ref.format(p=package)
    with pytest.raises(MetanetError, match=message.format(p=package)):
        load_factory(ref)


@pytest.mark.parametrize(
    ("ref", "package"), [("timm:resnet18", "timm"), ("hf:gpt2", "transformers")]
)
def test_a_package_that_is_not_installed_is_named(ref, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MetanetError, match=rf"{ref} needs {package}, .*: pip install 'metanet\[hub\]'"
    ):
        load_factory(ref)


def test_packages_are_imported_only_when_they_are_used():
    program = (
        "import sys, metanet.sources, metanet.tracing as tracing\n"
        "tracing.example_inputs(metanet.sources.load_source('torch.nn:Linear', "
        "in_features=1, out_features=1))\n"
        "print(sorted({'timm', 'torchvision', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        (
            "mlp",
            {"widht": 3},
            r"arch_args.widht=3: got an unexpected keyword argument 'widht'.*\(width=4, \*, depth",
        ),
        (
            "needs",
            {},
            r"with no arch_args: missing a required argument: 'width'.*It takes \(width\)",
        ),
        ("passes_on", {"widht": 3}, "doesn't take arch_args.widht"),
        ("no_network", {}, r"returned int, expected a torch.nn.Module"),
    ],
)
def test_says_what_is_wrong_with_the_arguments(factory, arguments, message, package):
    with pytest.raises(MetanetError, match=message):
        load_source(f"{package}.small:{factory}", **arguments)


def test_makes_the_network_where_it_is_asked_for(package):
    assert load_source(f"{package}.small:mlp", device="meta")[0].weight.is_meta
    assert load_source(f"{package}.small:mlp", device="cpu", width=2)[0].weight.device.type == "cpu"


def test_says_when_values_are_needed(package):
    with pytest.raises(
        MetanetError, match=r"looks_at_values can't be made on the meta device.*\n  Use device=cpu"
    ):
        load_source(f"{package}.small:looks_at_values", device="meta")
    assert isinstance(load_source(f"{package}.small:looks_at_values"), nn.Linear)


def test_a_bug_in_the_factory_keeps_its_own_error(package):
    with pytest.raises(TypeError, match="unsupported operand"):
        load_source(f"{package}.small:broken", width=3)


def test_a_new_scheme_is_one_function(monkeypatch):

    @scheme("plain")
    def plain(rest):
        return lambda bias=True: nn.Linear(int(rest), 1, bias=bias)

    try:
        assert load_source("plain:3", bias=False).weight.shape == (1, 3)
    finally:
        SCHEMES.remove("plain")
