"""What pages say works: their code runs, in order, and the links between files lead somewhere."""

import importlib.util
import tomllib

import nbclient
import nbformat
import pytest
import yaml

from docs.pages import NOT_RUN, PAGES, ROOT, blocks_of, run_page

WITH_CODE = [page for page in PAGES if any(block.is_run for block in blocks_of(page))]


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_runs(page, empty_folder):
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_data_on_a_page_can_be_parsed(page):
    for block in blocks_of(page):
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)


def test_blocks_that_are_not_run_say_why():
    assert NOT_RUN.fullmatch("# not run: it takes a day")
    assert not NOT_RUN.fullmatch("# not run")
    skipped = [block for page in PAGES for block in blocks_of(page) if NOT_RUN.match(block.first)]
    assert len(skipped) <= 3


def test_pictures_are_those_that_the_script_draws():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs/pictures/draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    drawn = {f"{picture.__name__}.svg": picture().svg() for picture in draw.PICTURES}
    assert {path.name: path.read_text() for path in draw.HERE.glob("*.svg")} == drawn


NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "clear its outputs"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
