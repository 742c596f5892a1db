"""The console script on stand-ins: the shipped configuration, but tasks, models and zoos that do
nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

import metanet
from metanet import config
from metanet.errors import CheckpointError
from metanet.nn import MODELS, Metanet
from metanet.sources import load_source

ROOT = Path(__file__).parent.parent.parent
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")


def stub_configuration(folder):
    """The shipped configuration; task, model and zoo are small stand-ins, and times in paths are
    one constant."""
    shutil.copytree(ROOT / "conf", folder)
    for group in ("task", "model", "zoo", "experiment"):
        shutil.rmtree(folder / group, ignore_errors=True)
        (folder / group).mkdir()
    # the shipped default may change, the tests' stand-in has one name
    train = folder / "train.yaml"
    train.write_text(re.sub(r"- model: \w+", "- model: gmn", train.read_text()))
    groups = {
        group: name
        for entry in yaml.safe_load((folder / "train.yaml").read_text())["defaults"]
        if isinstance(entry, dict)
        for group, name in entry.items()
    }
    for group, name in [
        *groups.items(),
        ("model", "other"),
        ("zoo", "digits_tiny"),
        ("zoo", "pair"),
    ]:
        path = folder / group / f"{name}.yaml"
        if name is not None and not path.exists():
            path.write_text(f"name: {name}\nwidth: 4\n")
    (folder / "zoo" / "pair.yaml").write_text("_target_: stub_zoos.Pair\nsize: 2\n")
    (folder / "experiment" / "wide.yaml").write_text(
        "# @package _global_\nseed: 7\nmodel: {width: 64}\n"
    )
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace("${now:%Y-%m-%d_%H-%M-%S}", "now"))
    return groups


class OtherModel(Metanet):
    """What the stand-in ``model=other`` names: a configuration is checked against what its model
    takes."""

    def __init__(self, width: int = 4, out_dim: int = 1) -> None:
        self.width = width


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Commands run on stand-ins in an empty folder; every configuration that a command was called
    with is here."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    stub_configuration(tmp_path / "conf")
    monkeypatch.setattr(config, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setattr(MODELS, "_entries", {**MODELS, "other": OtherModel})
    tasks, calls = types.ModuleType("metanet.tasks"), []

    def predict(cfg):
        calls.append(
            OmegaConf.create(config.plain(cfg))
        )  # the run directory resolves while the command runs

    def train(cfg):
        predict(cfg)
        if cfg.seed == 13:
            raise CheckpointError("an unlucky file\nand a second line")
        run_dir = Path(cfg.paths.run_dir)
        (run_dir / "metrics.json").write_text(
            json.dumps({"seen": {"tau": cfg.seed / 4}, "width": cfg.model.width})
        )
        return 1.0

    tasks.train, tasks.predict = train, predict
    monkeypatch.setitem(sys.modules, "metanet.tasks", tasks)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return calls


PROGRAM = """
import os, sys, time, types
from pathlib import Path

from metanet import cli, config

def train(cfg):
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK"))
    Path(f"rank-{{rank}}").write_text(f"{{cfg.seed}} {{cfg.paths.run_dir}}")  # lines on stdout may mix
    {body}

config.conf_dir = lambda: Path({conf!r})
sys.modules["metanet.tasks"] = types.ModuleType("metanet.tasks")
sys.modules["metanet.tasks"].train = train
if __name__ == "__main__":
    time.sleep(1.2 * int(os.environ.get("RANK", "0")))  # so that the ranks' clocks would give two directories
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def launch(tmp_path):
    """Run a command in processes of its own: ``launch(command, body)``, where ``body`` is what
    ``train`` does."""

    def launch(command, body="pass"):
        stub_configuration(tmp_path / "conf")
        for path in (tmp_path / "conf").glob("*.yaml"):
            path.write_text(path.read_text().replace("/now", "/${now:%H-%M-%S}"))
        body = textwrap.indent(textwrap.dedent(body), "    ").strip()
        (tmp_path / "program.py").write_text(PROGRAM.format(conf=str(tmp_path / "conf"), body=body))
        clean = {key: value for key, value in os.environ.items() if key not in RANKS}
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env=clean,
        )

    return launch


@pytest.fixture
def timm_pair(calls):
    """A small network of timm with values everywhere, as a.safetensors, and relabelled, as
    b.safetensors.

    Returns:
        The network, and its state dict.
    """
    model = load_source("timm:test_resnet", num_classes=3)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            spread = torch.randn(tensor.shape) * (0.3 if tensor.ndim > 1 else 1)
            tensor.copy_(torch.rand(tensor.shape) + 0.5 if name.endswith("running_var") else spread)
    a = model.state_dict()
    metanet.save_checkpoint("a.safetensors", a)
    metanet.save_checkpoint(
        "b.safetensors", metanet.trace(model).spec.sample(torch.Generator().manual_seed(2))(a)
    )
    return model, a
