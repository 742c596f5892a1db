"""A folder with a module ``evil``, which leaves a canary when it is imported; nothing is
remembered."""

import sys
from pathlib import Path

import pytest

EVIL = """
from pathlib import Path
import torch
from torch import nn
import metanet.nn
from metanet.nn import DeepSets, register
from metanet.tasks import AccuracyPrediction
Path("canary").touch()
def cnn(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
class Task(AccuracyPrediction): pass
if "evil_net" not in metanet.nn.MODELS:
    @register("evil_net")
    class Net(DeepSets): pass
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where the tests of this folder run; returns it."""
    monkeypatch.setenv("METANET_STATE", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    (here / "evil.py").write_text(EVIL)
    (here / "victim").write_text("precious")
    forget(monkeypatch)
    yield here
    forget(monkeypatch)


def forget(monkeypatch):
    """As a process does that has not imported the module."""
    import metanet.nn

    sys.modules.pop("evil", None)
    if "evil_net" in metanet.nn.MODELS:
        metanet.nn.MODELS.remove("evil_net")


def untouched() -> bool:
    return not Path("canary").exists() and Path("victim").read_text() == "precious"
