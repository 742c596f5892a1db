"""The scripts in examples/ are short, listed, and run."""

import runpy

import pytest

from docs.pages import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_each_is_listed():
    readme = (ROOT / "examples/README.md").read_text()
    assert [path.name for path in EXAMPLES if f"[{path.name}]({path.name})" not in readme] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_runs(path, empty_folder, capsys):
    assert len(path.read_text().splitlines()) < 40
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
