import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import metanet.nn
from metanet import MetanetError
from nn.graphs import former, mixed, ready


@pytest.fixture
def folder(tmp_path):
    metanet.nn.save(tmp_path / "m", ready("gmn", mixed(), width=8, layers=1))
    return tmp_path / "m"


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_description_is_for_people_too(folder):
    description = json.loads((folder / "model.json").read_text())
    assert description["model"] == "gmn"
    assert description["arguments"]["width"] == 8
    assert description["arguments"]["dropout"] == 0.1  # defaults may change; a saved model does not


def test_dtype_comes_back(folder):
    assert next(metanet.nn.load(folder).parameters()).dtype == torch.float64


def test_errors(folder, tmp_path):
    with pytest.raises(
        MetanetError,
        match=r"no saved metanetwork in .*/nowhere: it lacks model.json and model.safetensors",
    ):
        metanet.nn.load(tmp_path / "nowhere")
    with pytest.raises(MetanetError, match="must be plain JSON types: Object of type Tensor"):
        metanet.nn.save(folder, metanet.nn.load(folder), {"mean": torch.zeros(1)})
    edit(folder, model="gmn2")
    with pytest.raises(
        MetanetError,
        match=r"holds a model 'gmn2', known are: .*gmn.*, stat. Is it one of your own",
    ):
        metanet.nn.load(folder)
    edit(folder, metanet="0.0.9")
    with pytest.raises(
        MetanetError, match=r"known are: .*stat. It was written by metanet '0.0.9'; this is"
    ):
        metanet.nn.load(folder)
    edit(folder, model="gmn", arguments={"width": 8, "heads": 3})
    with pytest.raises(MetanetError, match="model 'gmn' has no argument heads"):
        metanet.nn.load(folder)
    edit(folder, arguments={"width": 9, "layers": 1, "out_dim": 3})
    shape = r"shape       node_embedding.*is \(32, 8\), expected \(32, 9\)"
    unfit = rf"(?s)do not fit model 'gmn':.*{shape}.*and \d+ more"
    with pytest.raises(MetanetError, match=unfit):
        metanet.nn.load(folder)
    edit(folder, arguments={"width": 8, "layers": 2, "out_dim": 3})
    with pytest.raises(MetanetError, match=r"(?s)missing     layers.1.edge.weight \(8, 8\)"):
        metanet.nn.load(folder)
    edit(folder, pair="another")
    with pytest.raises(MetanetError, match="not of the same save: one was interrupted"):
        metanet.nn.load(folder)
    edit(folder, format=99)
    with pytest.raises(MetanetError, match="has format 99, known is 1"):
        metanet.nn.load(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(MetanetError, match="model.json' is damaged or no JSON: Expecting"):
        metanet.nn.load(folder)


def test_damaged_tensors(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MetanetError, match="no whole safetensors file"):
        metanet.nn.load(folder)


@pytest.mark.parametrize("failing", ["save_checkpoint", "_move"])
def test_an_interrupted_save_over_an_old_model_keeps_the_old_one_or_has_the_new_one(
    folder, failing, monkeypatch
):
    """Before the swap, and after it: never a mix."""
    old = metanet.nn.load(folder)
    new = metanet.nn.load(folder)
    for value in new.parameters():
        value.data += 1
    place = {"save_checkpoint": "metanet.nn._saving", "_move": "metanet.checkpoints._together"}[
        failing
    ]

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{failing}", fail)
        with pytest.raises(KeyboardInterrupt):
            metanet.nn.save(folder, new, {"which": "new"})
    found = metanet.nn.load(folder)
    right = old if failing == "save_checkpoint" else new
    assert all(
        torch.equal(a, b) for a, b in zip(found.parameters(), right.parameters(), strict=True)
    )
    assert found.meta.get("which") == (None if failing == "save_checkpoint" else "new")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["gmn", "probed_gmn"])
def test_a_model_of_before_the_head_was_called_head_still_loads(name, tmp_path):
    small = {"width": 8, "layers": 1}
    arguments = {"gmn": small, "probed_gmn": {"gmn": small, "probes": 3}}[name]
    model = metanet.nn.build(name, **arguments)
    metanet.nn.save(tmp_path, model)
    path = tmp_path / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = former(load_file(path))
    assert state.keys() != model.state_dict().keys()
    save_file(state, path, metadata)
    again = metanet.nn.load(tmp_path)
    assert all(
        torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items()
    )
    model.load_state_dict(state)  # as a stopped run does
