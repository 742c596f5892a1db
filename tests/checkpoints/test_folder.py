"""Folders: one checkpoint is found, several are listed."""

import json

import pytest
import torch

from metanet.checkpoints import load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError


def write(folder, *names):
    """Files that tell which one was read."""
    for name in names:
        if name.endswith(".json"):
            file = f"shard-of-{name}".removesuffix(".index.json")
            write(folder, file)
            (folder / name).write_text(json.dumps({"weight_map": {"name": file}}))
        elif name.endswith(".safetensors"):
            save_checkpoint(folder / name, {"name": torch.tensor(list(name.encode()))})
        else:
            torch.save({"name": torch.tensor(list(name.encode()))}, folder / name)


def read(folder):
    return bytes(load_checkpoint(folder)["name"].tolist()).decode()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (
            ["model.safetensors.index.json", "pytorch_model.bin.index.json"],
            "shard-of-model.safetensors",
        ),
        (
            ["model.safetensors", "adapter_model.safetensors", "consolidated.safetensors"],
            "model.safetensors",
        ),
        (
            ["diffusion_pytorch_model.safetensors", "other.safetensors"],
            "diffusion_pytorch_model.safetensors",
        ),
        (
            ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state_0.pth"],
            "pytorch_model.bin",
        ),
        (["pytorch_model.bin.index.json"], "shard-of-pytorch_model.bin"),
        (["weights.safetensors", "old.pt"], "weights.safetensors"),
        (["last.ckpt"], "last.ckpt"),
        (["model.safetensors", ".a1b2c3d4.partial.model.safetensors"], "model.safetensors"),
    ],
)
def test_finds_the_one_checkpoint(names, chosen, tmp_path):
    write(tmp_path, *names)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"a shard of something else")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "README.md").touch()
    if any(name.endswith("index.json") for name in names):
        names = ["model-00001-of-00001.safetensors"]
    assert read(tmp_path) == chosen


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["a.safetensors", "b.safetensors"], "a.safetensors, b.safetensors"),
        (["epoch=1.ckpt", "last.ckpt"], "epoch=1.ckpt, last.ckpt"),
        (
            ["model.safetensors", "model.safetensors.index.json"],
            "model.safetensors, model.safetensors.index.json",
        ),
        (
            ["pytorch_model.bin", "pytorch_model.bin.index.json"],
            "pytorch_model.bin, pytorch_model.bin.index.json",
        ),
    ],
)
def test_several_are_listed(names, listed, tmp_path):
    write(tmp_path, *names)
    with pytest.raises(
        CheckpointError, match=f"is a folder with several checkpoints: {listed}. Give one"
    ):
        load_checkpoint(tmp_path)


def test_the_config_is_part_of_the_metadata(tmp_path):
    save_checkpoint(tmp_path / "model.safetensors", {"w": torch.ones(1)}, {"epoch": 3})
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert load_checkpoint(tmp_path).metadata == {"epoch": 3, "config": {"model_type": "bert"}}
    (tmp_path / "config.json").write_text('{"model_type"')
    with pytest.raises(
        CheckpointError, match=r"is damaged or no JSON.*; model.safetensors alone can be opened"
    ):
        load_checkpoint(tmp_path)


def test_shards_without_an_index_were_cut_off(tmp_path):
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(
        CheckpointError, match=r"has shards \(model-00001-of-00002.safetensors, ...\) but no index"
    ):
        load_checkpoint(tmp_path)


def test_a_folder_without_a_checkpoint_says_what_it_has(tmp_path):
    with pytest.raises(
        CheckpointError,
        match="is a folder without a checkpoint: it is empty; known: .safetensors, .pt",
    ):
        load_checkpoint(tmp_path)
    for i in range(7):
        (tmp_path / f"{i}.txt").touch()
    with pytest.raises(
        CheckpointError, match="it has 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more; known"
    ):
        load_checkpoint(tmp_path)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("../blobs/gone")
    with pytest.raises(CheckpointError, match="model.safetensors' does not exist"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "checkpoints", "net.th", "NET.PT", "weights.pkl"]
)
def test_a_name_that_does_not_tell_is_opened_by_what_it_is(name, tmp_path):
    (tmp_path / "README.md").write_text("# a model")
    torch.save({"state_dict": {"name": torch.ones(2)}}, tmp_path / name)
    torch.save({"lr": 1.0}, tmp_path / "optimizer.pt")
    for path in (tmp_path, tmp_path / name):
        assert torch.equal(load_checkpoint(path)["name"], torch.ones(2))
    (tmp_path / "b.th").write_bytes((tmp_path / name).read_bytes())
    with pytest.raises(CheckpointError, match=rf"several checkpoints: .*{name}.*Give one"):
        load_checkpoint(tmp_path)
