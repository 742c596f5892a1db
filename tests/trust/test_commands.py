"""The attacks once more, through the commands themselves: exit code, message, and no canary."""

import json
import shutil
from pathlib import Path

import pytest

import metanet
from metanet import cli
from metanet.zoo import networks

from .conftest import forget, untouched
from .test_predict import GADGET, edit, made, old_task  # noqa: F401  # made is a fixture

OWN = (
    "zoo=folder",
    "path=own",
    "table=t.csv",
    "label=quality",
    "input_shape=[1,8,8]",
    "logger=none",
)


@pytest.fixture
def theirs(made, place):  # noqa: F811
    shutil.copytree(made, place / "theirs")
    metanet.save_checkpoint(place / "one.safetensors", networks.mlp([3]).state_dict())
    return place / "theirs"


@pytest.mark.parametrize(
    "change",
    [
        old_task(GADGET),
        lambda d: d.update(model="x", reference="os:system"),
        lambda d: d["meta"].update(task={"reference": "evil:Task", "arguments": {}}),
        lambda d: d["arguments"].update(layers=2**62),
    ],
    ids=["gadget", "command", "task", "size"],
)
def test_predict(change, theirs, capsys):
    edit(theirs, change)
    assert cli.main(["predict", "run=theirs", "checkpoint=one.safetensors"]) == 1
    message = capsys.readouterr().err
    assert "metanet predict: " in message and "Traceback" not in message and len(message) < 2000
    assert untouched()


def test_predict_with_the_users_word(theirs, capsys, monkeypatch):
    edit(theirs, lambda d: d["meta"]["task"].update(name=None, reference="evil:Task"))
    assert cli.main(["predict", "run=theirs", "checkpoint=one.safetensors"]) == 1
    assert "'evil:Task'" in capsys.readouterr().err and untouched()
    assert cli.main(["predict", "run=theirs", "checkpoint=one.safetensors", "trust=theirs"]) == 0
    assert "quality: " in capsys.readouterr().out and Path("canary").exists()
    forget(monkeypatch)
    assert cli.main(["predict", "run=theirs", "checkpoint=one.safetensors"]) == 0, (
        "it is remembered"
    )


@pytest.mark.parametrize("command", ["train", "zoo"])
@pytest.mark.parametrize("reference", ["evil:cnn", "os:system"])
def test_a_table_that_names_code(command, reference, place, capsys):
    (place / "own").mkdir()
    metanet.save_checkpoint(place / "own/a.safetensors", networks.mlp([3]).state_dict())
    (place / "own/t.csv").write_text(f"path,quality,architecture\na.safetensors,1,{reference}\n")
    own = OWN if command == "train" else OWN[:-1]
    assert cli.main([command, *own]) == 1
    message = capsys.readouterr().err
    assert repr(reference) in message and f"trust={place / 'own'}" in message
    assert untouched()


def test_the_id_of_a_run_is_no_path(place):
    from metanet.tasks._run import _wandb_id

    (place / "wandb_id").write_text("../../elsewhere")
    given = _wandb_id(place)
    assert given.isalnum() and _wandb_id(place) == given == (place / "wandb_id").read_text()


def test_a_finished_run_is_described_in_plain_json(theirs):
    description = json.loads((theirs / "model/model.json").read_text(), parse_constant=pytest.fail)
    assert description["meta"]["task"]["name"] == "accuracy_prediction"
    assert description["meta"]["architectures"]["mlp"]["arch_args"] == {"widths": [3]}
    assert description["reference"] is None
