"""What the README says works: its Python runs, its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from metanet.alignment import MATCHERS
from metanet.merging import METHODS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# examples' placeholders -> something that composes
FILLED = {
    "RUN_DIR": "outputs/some_run",
    "DIR": "some_folder",
    "FILE": "some.safetensors",
    "package.module:factory": "metanet.zoo.networks:mlp",
}


def commands() -> list[str]:
    """Every ``metanet ...`` and ``python train.py ...`` in code spans and blocks."""
    code = re.findall(r"```sh\n(.*?)```", README, re.S) + re.findall(r"`([^`\n]+)`", README)
    lines = [line.split("#")[0].strip() for block in code for line in block.splitlines()]
    return sorted(
        {x for x in lines if x.startswith(("metanet ", "python train.py ")) and "KEY" not in x}
    )


def test_the_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 5
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "SymmetrySpec: 1 groups" in done.stdout
    assert (tmp_path / "architecture.json").is_file()
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_there_are_commands():
    assert len(commands()) >= 8


@pytest.mark.parametrize("line", commands())
def test_the_command_composes(line, tmp_path):
    words = shlex.split(line.removeprefix("python train.py").removeprefix("metanet "))
    if line.startswith("python"):
        words = ["train", *words]
    words = [re.sub("|".join(map(re.escape, FILLED)), lambda m: FILLED[m[0]], w) for w in words]
    if "--help" in words or "-m" in words:
        words = [w for w in words if w not in ("-m",)]
        words = [w.split(",")[0] if re.match(r"(model|seed)=", w) else w for w in words]
    if any(w.startswith("resume=") for w in words):
        run = tmp_path / "outputs/some_run/.hydra"
        run.mkdir(parents=True)
        (run / "overrides.yaml").write_text("[]")
        (run / "config.yaml").write_text("{}")
        (run / "hydra.yaml").write_text("{}")
    if "--help" not in words:
        words += ["--cfg", "job"]
    done = subprocess.run(
        [sys.executable, "-m", "metanet.cli", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stderr}"


def test_every_method_and_matcher_is_named():
    assert {name for name in (*METHODS, *MATCHERS) if f"`{name}`" not in README} == set()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z]+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
