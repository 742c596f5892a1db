"""A tiny zoo, made once a session, and runs on it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from metanet.config import conf_dir
from metanet.tasks import train
from metanet.zoo import DigitsClassifiers

ROOT = Path(__file__).parents[2]
TINY = {"networks": 24, "epochs": 2, "architectures": ["cnn4_gelu", "cnn3_relu", "mlp2_tanh"]}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """The root folder of a made ``zoo=digits_tiny``."""
    root = tmp_path_factory.mktemp("data")
    DigitsClassifiers(**TINY, root=str(root)).load(progress=False)
    return root


def compose_train(*overrides: str) -> DictConfig:
    """The configuration of ``metanet train``."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=list(overrides))


@pytest.fixture
def run(tiny_data, tmp_path, monkeypatch):
    """Run ``metanet train`` in this process: ``run("model=stat", name="a")`` -> (folder,
    metrics)."""
    monkeypatch.setenv("METANET_DATA", str(tiny_data))

    def go(
        *overrides: str, name: str = "run", zoo: str = "digits_tiny"
    ) -> tuple[Path, dict[str, float]]:
        folder = tmp_path / name
        given = [
            f"zoo={zoo}",
            "logger=none",
            "trainer.max_epochs=2",
            f"paths.run_dir={folder}",
            "device=cpu",
        ]
        train(compose_train(*given, "task.batch_size=8", "trainer.log_every_n_steps=1", *overrides))
        return folder, json.loads((folder / "metrics.json").read_text())

    go.folder = tmp_path
    return go


def command(*args: str, cwd: Path, env: dict[str, str], **kwargs) -> subprocess.CompletedProcess:
    """The console script in a process of its own."""
    words = [sys.executable, "-m", "metanet.cli", *args]
    return subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, **kwargs
    )
