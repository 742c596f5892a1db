"""Every registry of the package: names that can be typed, a home, a docstring, words for messages."""

import importlib
import inspect
import pkgutil
import re

import pytest

import metanet
from metanet.errors import MetanetError
from metanet.plugins import CONFIGURED
from metanet.registry import Registry


def all_registries():
    """``room.NAME`` -> registry, of every module that can be imported."""
    found = {}
    for module in pkgutil.walk_packages(metanet.__path__, "metanet."):
        members = vars(importlib.import_module(module.name))
        for name, value in members.items():
            if isinstance(value, Registry):
                found.setdefault(id(value), (f"{module.name}:{name}", value))
    return dict(sorted(found.values()))


REGISTRIES = all_registries()
# by name, not in the order of registration: that is a matter of which module was imported first
ENTRIES = [(place, name) for place, registry in REGISTRIES.items() for name in sorted(registry)]


def test_all_kinds_are_here():
    groups = {registry.group for registry in REGISTRIES.values()}
    assert groups >= {
        *CONFIGURED,
        "metanet.rules",
        "metanet.readers",
        "metanet.repairs",
        "metanet.schemes",
    }


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
class TestEach:
    def test_groups_are_metanets_and_of_one_kind_only(self, registry):
        groups = [each.group for each in REGISTRIES.values() if each.group is not None]
        assert registry.group is None or registry.group.startswith("metanet.")
        assert groups.count(registry.group) <= 1

    def test_messages_read_well(self, registry):
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", registry.what)
        with pytest.raises(MetanetError, match=f"there is no {registry.what} 'no-such-thing'"):
            registry.find("no-such-thing")

    def test_nobody_is_unheard(self, registry):
        assert registry.failures() == []
        assert len(registry) == len(registry.choices()) > 0
        assert all(line.strip() for line in registry.describe().splitlines())

    def test_a_taken_name_is_refused(self, registry):
        first = registry.choices()[0]
        with pytest.raises(MetanetError, match=f"there are two {registry.plural} named '{first}'"):
            registry.add(first, registry[first])


@pytest.mark.parametrize(("place", "name"), ENTRIES)
def test_each_entry_has_a_name_a_home_and_a_docstring(place, name):
    registry = REGISTRIES[place]
    assert re.fullmatch(r"[\w.]+", name), "what nobody has to quote"
    assert registry.home(name).endswith(".py") and "metanet" in registry.home(name)
    assert registry.is_installed(name)
    assert registry.summary(name).endswith((".", ":")), inspect.getdoc(registry[name])
