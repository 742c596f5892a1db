"""A run that diverges ends in an error that says when; a stated split is kept."""

import numpy as np
import pytest
import torch

from metanet.checkpoints import save_checkpoint
from metanet.errors import MetanetError
from metanet.tasks._data import split_runs
from metanet.tasks._module import check_finite
from metanet.zoo import Population, Zoo, networks

SMALL = ("model=gmn", "model.width=8", "model.layers=1")
PROBED = (
    "model=probed_gmn",
    "model.probes=4",
    "model.gmn={width: 8, layers: 1}",
)  # runs the networks, NaN and all
OWN = (
    "zoo.table=t.csv",
    "zoo.label=quality",
    "zoo.input_shape=[1,8,8]",
    "zoo.arch=metanet.zoo.networks:mlp",
)


@pytest.fixture
def own(tmp_path):
    """Twelve networks, one of which diverged."""
    lines = ["path,quality"]
    for i in range(12):
        torch.manual_seed(i)
        state = networks.mlp([3]).state_dict()
        if i == 7:
            state["1.weight"][0, 0] = float("nan")
        path = tmp_path / f"own/{i}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(path, state)
        lines.append(f"{i}.safetensors,{i / 12}")
    (tmp_path / "own/t.csv").write_text("\n".join(lines))
    return (
        *OWN,
        f"zoo.path={tmp_path}/own",
        "+zoo.arch_args.widths=[3]",
        "task.val=0.25",
        "task.test=0.25",
    )


def test_a_network_that_diverged_is_left_out(run, own, caplog):
    _, metrics = run(*PROBED, *own, zoo="folder")
    assert "7.safetensors" in caplog.text
    assert all(np.isfinite(metrics[f"test/{name}"]) for name in ("r2", "mae"))


def test_kept_it_ends_training_with_the_epoch(run, own):
    with pytest.raises(MetanetError, match=r"diverged: in epoch 0 its loss is nan .*zoo.nan=drop"):
        run(*PROBED, *own, "zoo.nan=keep", zoo="folder")


def test_so_does_a_learning_rate_that_is_too_large(run):
    with pytest.raises(MetanetError, match=r"diverged: in epoch \d .*smaller optim.optimizer.lr"):
        run(*SMALL, "optim.optimizer.lr=1e30", "trainer.gradient_clip_val=null")


def test_what_is_finite_passes():
    check_finite(torch.zeros(3, 1), 0.5, "now")
    for output, loss in (
        (torch.tensor([[1.0], [float("inf")]]), 0.5),
        (torch.zeros(2, 1), float("nan")),
    ):
        with pytest.raises(MetanetError, match="diverged: now"):
            check_finite(output, loss, "now")


def stated(*splits):
    count = len(splits)
    state = {"w": torch.zeros(count, 1)}
    one = Population(
        architecture="a",
        ref="r",
        arch_args={},
        input_shape=(1,),
        state=state,
        rows=torch.arange(count),
    )
    table = {
        "id": np.arange(count),
        "run": np.arange(count),
        "architecture": np.array(["a"] * count),
    }
    return Zoo(
        name="z", path=None, table={**table, "split": np.array(splits)}, populations={"a": one}
    )


def divide(zoo):
    parts = split_runs(zoo, fractions={"val": 0.25, "test": 0.25}, unseen=(), seed=0)
    return {name: rows.tolist() for name, rows in parts.items()}


def test_a_column_split_decides():
    zoo = stated("test", "train", "val", "unseen", "train", "val")
    assert divide(zoo) == {"train": [1, 4], "val": [2, 5], "test": [0], "unseen": [3]}


def test_without_val_a_part_of_the_training_networks_is_taken():
    zoo = stated(*["train"] * 12, "test", "test")
    parts = divide(zoo)
    assert parts["test"] == [12, 13] and 0 < len(parts["val"]) < 6
    assert sorted(parts["train"] + parts["val"]) == list(range(12))


def test_a_column_split_that_cannot_be():
    with pytest.raises(MetanetError, match="leaves test empty"):
        divide(stated("train", "val", "train"))
    with pytest.raises(MetanetError, match="says dev; choose train, val, test, unseen"):
        divide(stated("train", "dev", "test"))
