"""What the README and the pages name exists: commands compose, methods and targets are there, links lead
somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import metanet
from docs.pages import PAGES, ROOT
from metanet import cli
from metanet.alignment import MATCHERS
from metanet.merging import METHODS
from metanet.nn import MODELS

README = (ROOT / "README.md").read_text()
# examples' placeholders -> something that composes
FILLED = {
    "RUN_DIR": "outputs/some_run",
    "run directory": "outputs/some_run",
    "FILE": "some.safetensors",
    "IMAGE_FOLDER": "some_folder",
    "FOLDER": "some_folder",
    "DIR": "some_folder",
    "NEW": "other_folder",
    "OTHER": "other_folder",
    "CSV": "some.csv",
    "COLUMN": "accuracy",
    "package.module:factory": "metanet.zoo.networks:mlp",
}


def spans(page: Path) -> set[str]:
    """Every ``metanet ...`` and ``python train.py ...`` in the code spans of a page; its blocks are run."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    lines = {span.strip() for span in re.findall(r"`([^`\n]+)`", text)}
    starts = ("metanet ", "python train.py ")
    return {
        line
        for line in lines
        if line.startswith(starts) and not re.search("KEY|COMMAND|GROUP", line)
    }


def examples() -> set[str]:
    """The examples that the commands' ``--help`` shows."""
    headers = [
        yaml.safe_load(path.read_text())["hydra"]["help"]["header"]
        for path in (ROOT / "conf").glob("*.yaml")
        if path.stem != "command"
    ]
    text = "\n".join(headers).replace("\\\n", " ")
    lines = (re.split(r"   +(?=[a-z])", line.strip())[0] for line in text.splitlines())
    return {
        line for line in lines if line.startswith("metanet ") and ": " not in line.partition("'")[0]
    }


COMMANDS = sorted(set().union(*map(spans, PAGES)) | {e for e in examples() if "NAME" not in e})


def test_the_readme_is_short():
    assert 3_000 < len(README.encode()) <= 6_500


def test_its_figures_are_those_of_the_results():
    """As numbers of this form, and as sums of the rows on how far symmetries reach."""
    _, _, figures = README.partition("## What it shows")
    figures = figures.partition("\n## ")[0]
    results = (ROOT / "docs/results.md").read_text()
    numbers = re.findall(r"\d+\.\d+|\d+ s\b", figures)
    assert len(numbers) >= 8
    assert [number for number in numbers if number not in results] == []
    rows = re.findall(r"^\| t[^|]+\| (\d+)[^|]*\| (\d+) \| (\d+) of (\d+) \|", results, re.M)
    networks, traced, sound, verified = (
        sum(map(int, column)) for column in zip(*rows, strict=True)
    )
    assert networks == traced
    assert f"traced: {traced} of {networks}; verified: {sound} of {verified}" in figures


def test_there_are_commands():
    assert len(COMMANDS) >= 50


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_composes(line, empty_folder, capsys):
    line = line.replace("python train.py", "metanet train")
    words = [
        re.sub("|".join(map(re.escape, FILLED)), lambda m: FILLED[m[0]], w)
        for w in shlex.split(line)[1:]
    ]
    for run in ("outputs/some_run", "some_folder"):
        (empty_folder / run / ".hydra").mkdir(parents=True)
        for name, text in {"overrides": "[]", "config": "{}", "hydra": "{}"}.items():
            (empty_folder / run / ".hydra" / f"{name}.yaml").write_text(text)
    for name in "ab":
        metanet.save_checkpoint(f"{name}.safetensors", {"weight": torch.ones(2)})
    config = {"models": ["a.safetensors", "b.safetensors"], "method": {"name": "linear"}}
    (empty_folder / "some_folder/merge_config.yaml").write_text(yaml.safe_dump(config))
    if "-m" in words:
        words.remove("-m")
        words = [w.split(",")[0] if re.match(r"(model|seed|matcher)=", w) else w for w in words]
    if not any(word.startswith(("--help", "recipe=")) for word in words):  # a recipe is merged
        words += ["--cfg", "job"]
    assert cli.main(words) == 0, capsys.readouterr().err


def test_every_method_matcher_and_model_is_named():
    guides = "".join(path.read_text() for path in (ROOT / "docs/guide").glob("*.md"))
    assert {name for name in (*METHODS, *MATCHERS, *MODELS) if f"`{name}`" not in guides} == set()


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "data/README.md"], ids=str
)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


LINKING = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "data/README.md",
        "examples/README.md",
    )
]


@pytest.mark.parametrize("page", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
    """The build of the docs checks the links between their pages; these files are not among them."""
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    assert links or page.parent.name == "data"
    for link, _ in links:
        assert (page.parent / link).exists(), link
