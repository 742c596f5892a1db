"""Examples in docstrings are true."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import metanet

FINDER = doctest.DocTestFinder(exclude_empty=True)


def _with_examples() -> list[str]:
    names = (module.name for module in pkgutil.walk_packages(metanet.__path__, "metanet."))
    files = ((name, Path(importlib.util.find_spec(name).origin)) for name in names)
    return [name for name, file in files if ">>> " in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", _with_examples())
def test_examples_of(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    tests = [test for test in FINDER.find(module, name) if test.examples]
    assert tests
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
