"""Packages that plug something in: the whole garden, installed, and small ones made for a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metanet import save_checkpoint

HERE = Path(__file__).parent
GARDEN = HERE / "garden"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The garden, built as a wheel and installed into a folder of its own, without the internet."""
    target = tmp_path_factory.mktemp("site")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, *install, "--target", str(target), str(GARDEN)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def metanet(tmp_path, monkeypatch):
    """Run a command in an empty folder: ``metanet("train", ..., beside=[folders])``."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*words, beside=()):
        environment = {
            **os.environ,
            "METANET_STATE": str(tmp_path / "state"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, beside)),
            "WANDB_MODE": "disabled",
        }
        return subprocess.run(
            [sys.executable, "-m", "metanet.cli", *words],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def flowers(metanet, tmp_path):
    """Checkpoints of the garden's networks in the folder that commands run in."""
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        shapes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
        state = {key: torch.randn(*shape, generator=generator) for key, shape in shapes.items()}
        save_checkpoint(tmp_path / "here" / f"{name}.safetensors", state)
    return names


def plant(folder, package, points, files, distribution=None):
    """An installed package, made by hand.

    Args:
        folder: on the path of modules.
        package: by which it is imported.
        points: entry points, ``{"metanet.matchers": {"near": "weeds.near"}}``.
        files: texts by path within the package.
        distribution: under which it was installed; default: the package's name.
    """
    distribution = distribution or package
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{package}/__init__.py,,\n{info.name}/METADATA,,\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder / package
