"""A wheel built from this tree works away from it, with its configuration; and the project's files
agree."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import metanet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel's files in a folder of their own, as pip --target lays them; dependencies are this
    environment's."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed, cwd, *args):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_wheel_holds_code_configuration_and_type_marker_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {
        f"metanet/conf/{path.relative_to(ROOT / 'conf')}"
        for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert shipped <= names
    assert {"metanet/cli.py", "metanet/py.typed", "metanet/_cli/sweep.py"} <= names
    assert {name.split("/")[0] for name in names} == {
        "metanet",
        f"metanet-{metanet.__version__}.dist-info",
    }


def test_the_installed_wheel_finds_its_configuration_from_any_folder(installed, tmp_path):
    where = "import metanet.config; print(metanet.config.conf_dir())"
    assert run(installed, tmp_path, "-c", where).stdout.strip() == str(
        installed / "metanet" / "conf"
    )
    done = run(installed, tmp_path, "-m", "metanet.cli", "train", "seed=5", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "seed: 5" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_is_the_command_line(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "metanet = metanet.cli:main" in archive.read(name).decode()


def test_train_py_is_metanet_train(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("metanet train: ")


def test_help_imports_nothing_heavy():
    """``metanet --help`` answers at once: torch, torch-geometric and lightning take seconds to
    import."""
    code = "import sys, metanet.cli; metanet.cli.main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torch_geometric", "lightning", "hydra", "wandb"} & set(
        done.stdout.split()
    )


def test_the_extras_hold_what_the_makefile_installs():
    makefile = (ROOT / "Makefile").read_text()
    for extra in re.findall(r'--editable "\.\[(\w+)\]"', makefile):
        assert extra in PROJECT["optional-dependencies"]
    dev = " ".join(PROJECT["optional-dependencies"]["dev"])
    assert all(
        name in dev
        for name in (
            "metanet[data,docs,hub]",
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "beartype",
            "ruff",
        )
    )


def test_ci_fails_when_the_tests_fail(tmp_path):
    """.ci/run hands on the exit code of make test."""
    (tmp_path / "make").write_text('#!/bin/sh\necho "make $*"\nexit 7\n')
    (tmp_path / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (7, "make test\n")
