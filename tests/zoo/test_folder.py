"""A zoo of one's own."""

import numpy as np
import pytest
import torch

from metanet.checkpoints import save_checkpoint
from metanet.errors import MetanetError
from metanet.zoo import FolderZoo, ZooError, networks

ARCH = "metanet.zoo.networks:mlp"
OPTIONS = {"arch": ARCH, "arch_args": {"widths": [3]}, "input_shape": [1, 8, 8], "label": "score"}


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints in a sub-folder, one beside it, and a table."""
    torch.manual_seed(0)
    for name in ("run1/a.safetensors", "run1/b.safetensors", "c.safetensors"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, networks.mlp((3,)).state_dict())
    write(
        tmp_path / "mine",
        "path,score,step",
        "run1/a.safetensors,0.5,1",
        "run1/b.safetensors,0.25,2",
        "c.safetensors,1e-3,3",
    )
    return tmp_path / "mine"


def write(folder, *lines):
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


def load(folder, **options):
    return FolderZoo(**{"path": str(folder), "table": "table.csv", **OPTIONS, **options}).load(progress=False)


def test_one_architecture(folder):
    zoo = load(folder)
    assert zoo.name == "mine" and len(zoo) == 3
    assert zoo.table["score"].tolist() == [0.5, 0.25, 1e-3]
    assert zoo.table["step"].dtype == np.int64
    assert zoo.table["id"].tolist() == ["run1/a.safetensors", "run1/b.safetensors", "c.safetensors"]
    assert zoo.table["run"].tolist() == ["run1", "run1", "c.safetensors"]
    population = zoo.populations["mlp"]
    assert list(population.state) == list(networks.mlp((3,)).state_dict())
    module = population.build()
    module.load_state_dict(population.state_dict(2))
    from metanet.checkpoints import load_checkpoint

    assert torch.equal(module[1].weight, load_checkpoint(folder / "c.safetensors")["1.weight"])
    assert population.example().shape == (2, 1, 8, 8)


def test_several_architectures_and_runs(folder):
    save_checkpoint(folder / "d.safetensors", networks.cnn((3,)).state_dict())
    write(
        folder,
        "path,score,run,architecture,id",
        f"c.safetensors,1,x,{ARCH},first",
        "d.safetensors,0,7,metanet.zoo.networks:cnn,second",
        "run1/a.safetensors,1,x,,third",
    )
    with pytest.raises(MetanetError, match="widths"):  # arch_args go to every factory
        load(folder)
    save_checkpoint(folder / "c.safetensors", networks.mlp().state_dict())
    save_checkpoint(folder / "run1/a.safetensors", networks.mlp().state_dict())
    save_checkpoint(folder / "d.safetensors", networks.cnn().state_dict())
    zoo = load(folder, arch_args={})
    assert zoo.table["run"].tolist() == ["x", "7", "x"]
    assert zoo.table["id"].tolist() == ["first", "second", "third"]
    assert zoo.table["architecture"].tolist() == ["mlp", "cnn", "mlp"]
    assert zoo.table["score"].dtype == np.int64  # all whole: classes
    assert zoo.populations["mlp"].rows.tolist() == [0, 2] and zoo.populations["cnn"].rows.tolist() == [1]


def test_checkpoint_of_another_architecture(folder):
    state = dict(networks.mlp((3, 3)).state_dict())
    save_checkpoint(folder / "run1/b.safetensors", state | {"extra": torch.zeros(1)})
    with pytest.raises(ZooError) as caught:
        load(folder)
    text = str(caught.value)
    assert "run1/b.safetensors does not fit metanet.zoo.networks:mlp(widths=[3])" in text
    assert "extra" in text and "5.weight" in text and "3.weight is (3, 3), expected (10, 3)" in text
    save_checkpoint(folder / "run1/b.safetensors", {"1.weight": state["1.weight"]})
    with pytest.raises(ZooError, match=r"(?s)missing .*1.bias.*3.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c.safetensors,high,1", r"'high' in column 'score', line 3"),
        ("../outside.safetensors,1,1", r"line 3 of .*'../outside.safetensors' leads out of"),
        ("/etc/passwd,1,1", r"line 3 of .*leads out of"),
        ("link.safetensors,1,1", r"line 3 of .*leads out of"),
        ("missing.safetensors,1,1", r"line 3 of .*there is no file"),
        ("c.safetensors,1", r"line 3 of .*does not have 3 fields"),
        ("c.safetensors,1,1,1", r"line 3 of .*does not have 3 fields"),
    ],
)
def test_bad_rows(folder, row, message):
    save_checkpoint(folder.parent / "outside.safetensors", {"a": torch.zeros(1)})
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")
    write(folder, "path,score,step", "run1/a.safetensors,0.5,1", row)
    with pytest.raises(ZooError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, "zoo.path: nowhere is not a folder"),
        ({"table": "other.csv"}, r"there is neither .*other.csv"),
        ({"label": "accuracy"}, r"no column 'accuracy' \(zoo.label\); it has path, score, step"),
        ({"arch": None}, "line 2 of .* names no architecture: set zoo.arch"),
        ({"input_shape": []}, "zoo.input_shape is empty"),
        ({"arch": "metanet.zoo.networks:mpl"}, "mlp"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(MetanetError, match=message):
        load(folder, **options)


def test_empty_and_binary_tables(folder):
    write(folder, "path,score")
    with pytest.raises(ZooError, match="no rows"):
        load(folder)
    (folder / "table.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ZooError, match="UTF-8"):
        load(folder)
