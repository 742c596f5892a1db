"""Pages and examples run in an empty folder, and leave no plugin of theirs behind."""

import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

import metanet
from metanet.plugins import CONFIGURED
from metanet.registry import Registry


def _registries() -> list[Registry]:
    for name in dir(metanet):
        getattr(metanet, name)  # every room is imported
    modules = [module for name, module in sys.modules.items() if name.startswith("metanet")]
    members = (value for module in modules for value in vars(module).values())
    return list({id(value): value for value in members if isinstance(value, Registry)}.values())


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The current folder, from which modules may be imported; both are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = set(sys.modules)
    names = [(registry, set(registry)) for registry in _registries()]
    yield tmp_path
    for group in filter(None, map(ConfigStore.instance().repo.get, CONFIGURED.values())):
        for choice in [choice for choice in group if ":" in choice]:
            del group[choice]
    for registry, earlier in names:
        for name in set(registry) - earlier:
            registry.remove(name)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if name.startswith("page_") or (file and Path(file).is_relative_to(tmp_path)):
            del sys.modules[name]
