"""A package of somebody's own that adds one of everything, built, installed and used."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metanet import load_checkpoint

from .conftest import GARDEN

TRAIN = (
    "train",
    "model=petals",
    "task=vigour",
    "zoo=flowers",
    "trainer.max_epochs=2",
    "logger=none",
)
SOURCES = sorted((GARDEN / "garden").rglob("*.*"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_each_takes_one_file_of_less_than_a_hundred_lines(path):
    assert len(path.read_text().splitlines()) < 100


def test_train_resume_predict_and_then_without_the_plugin(metanet, site, flowers):
    done = metanet(*TRAIN, "model.width=3", "zoo.networks=20", "hydra.run.dir=run", beside=[site])
    assert done.returncode == 0, done.stderr
    assert "petals" in Path("run/results.md").read_text()
    assert "warning" not in done.stderr
    saved = json.loads(Path("run/model/model.json").read_text())
    assert (saved["model"], saved["arguments"]["width"]) == ("petals", 3)
    assert saved["meta"]["task"]["name"] == "vigour"

    done = metanet("train", "resume=run", "trainer.max_epochs=3", beside=[site])
    assert done.returncode == 0, done.stderr

    done = metanet("predict", "run=run", "checkpoint=a.safetensors", beside=[site])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vigour: ")

    # without the plugin
    done = metanet("train", "resume=run")
    assert done.returncode == 1
    assert "model=petals: choose from" in done.stderr and "Traceback" not in done.stderr
    done = metanet("predict", "run=run", "checkpoint=a.safetensors")
    assert done.returncode == 1
    assert "no module garden" in done.stderr and "Traceback" not in done.stderr


def test_align_and_merge(metanet, site, flowers):
    network = ("arch=garden.flowers:flower", "input_shape=[4]")
    done = metanet(
        "align", "a=a.safetensors", "b=b.safetensors", *network, "matcher=nearest",
        "matcher.power=1", "out=moved", beside=[site],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Alignment by nearest" in done.stdout

    models = "models=[a.safetensors,b.safetensors,c.safetensors]"
    done = metanet("merge", models, "method=middle", "out=merged", beside=[site])
    assert done.returncode == 0, done.stderr
    three = [load_checkpoint(f"{name}.safetensors")["0.weight"] for name in flowers]
    median = torch.stack(three).median(0).values
    assert torch.equal(load_checkpoint("merged")["0.weight"], median)

    done = metanet("merge", "recipe=merged/merge_config.yaml", "out=again", beside=[site])
    assert done.returncode == 0, done.stderr


def test_help_and_mistakes_name_the_choices_of_plugins(metanet, site):
    done = metanet("train", "model=petals", "--help", beside=[site])
    assert "model.width: 16" in done.stdout and "# of the hidden layers" in done.stdout
    choices = done.stdout.partition("choices:")[2]
    assert re.search(r"^    petals +# \S", choices, re.M)  # with its summary
    done = metanet("train", "model=pedals", beside=[site])
    assert done.returncode == 1 and "did you mean model=petals?" in done.stderr
    done = metanet(*TRAIN, "model.wdth=3", "task.squared=7", "zoo.seeds=1", beside=[site])
    assert done.returncode == 1
    for line in ("did you mean model.width?", "task.squared=7: give true or false", "'zoo.seeds'"):
        assert line in done.stderr


BLOOM = """
import torch, metanet
from torch import nn
from garden.bloom import bloom

class Flower(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
    def forward(self, x):
        return self.last(bloom(self.first(x)))

arch = metanet.trace(Flower(), torch.randn(5, 4))
print(arch.spec)
print(arch.warnings)
print(metanet.verify(Flower(), arch.spec, torch.randn(5, 4)))
"""


def test_an_operation_has_its_rule(site, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOOM], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": f"{site}:{Path(__file__).parents[2]}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 groups" in done.stdout and "no rule" not in done.stdout, done.stdout
