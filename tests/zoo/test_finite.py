"""Networks that diverged in a zoo: named, and left out by default."""

import logging

import numpy as np
import pytest
import torch

from metanet.checkpoints import save_checkpoint
from metanet.zoo import (
    DigitsClassifiers,
    FolderZoo,
    MnistSirens,
    Population,
    Zoo,
    ZooError,
    networks,
    settle_labels,
    settle_weights,
)

ARCH = "metanet.zoo.networks:mlp"


def population(name, state, rows):
    return Population(
        architecture=name,
        ref=ARCH,
        arch_args={},
        input_shape=(1,),
        state=state,
        rows=torch.tensor(rows),
    )


@pytest.fixture
def zoo():
    """Five networks of two architectures; rows are mixed, and everything has a value that tells its
    network."""
    a = {"w": torch.arange(3.0)[:, None].repeat(1, 2), "steps": torch.arange(3)}
    b = {"w": torch.tensor([10.0, 11.0])}
    table = {
        "id": np.array(list("abcde")),
        "label": np.arange(5) / 2,
        "architecture": np.array(list("aabab")),
    }
    curves = {"id": np.array(list("abbe")), "epoch": np.array([1, 1, 2, 1])}
    return Zoo(
        name="z", path=None, table=table, curves=curves, unseen=("b",), pictures=lambda rows: (rows, -rows),
        populations={"a": population("a", a, [0, 1, 3]), "b": population("b", b, [2, 4])},
    )  # fmt: skip


def test_a_sound_zoo_stays_as_it_is(zoo):
    assert settle_weights(zoo, "drop").populations == zoo.populations


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_dropped_networks_take_everything_of_theirs_along(zoo, value, caplog):
    zoo.populations["a"].state["w"][1, 0] = value  # row 1, network b
    with caplog.at_level(logging.WARNING):
        left = settle_weights(zoo, "drop")
    assert "1 of 5 networks of the zoo z have weights that are NaN or infinite: b" in caplog.text
    assert left.table["id"].tolist() == list("acde") and left.table["label"].tolist() == [
        0,
        1,
        1.5,
        2,
    ]
    assert left.populations["a"].rows.tolist() == [0, 2] and left.populations[
        "b"
    ].rows.tolist() == [1, 3]
    assert left.populations["a"].state["w"][:, 0].tolist() == [0, 2]
    assert left.populations["a"].state["steps"].tolist() == [0, 2]
    assert left.curves["id"].tolist() == ["a", "e"]
    assert left.pictures(torch.tensor([1, 3]))[0].tolist() == [2, 4], "of the rows as they were"


def test_architectures_without_networks_are_left_out(zoo):
    zoo.populations["b"].state["w"].fill_(float("nan"))
    left = settle_weights(zoo, "drop")
    assert list(left.populations) == ["a"] and left.unseen == () and len(left) == 3


def test_the_other_choices(zoo, caplog):
    zoo.populations["b"].state["w"][1] = float("nan")
    with pytest.raises(ZooError, match=r"1 of 5 .*: e. Take them out .*zoo.nan=drop"):
        settle_weights(zoo, "error")
    with caplog.at_level(logging.WARNING):
        assert len(settle_weights(zoo, "keep")) == 5
    assert "1 of 5" in caplog.text and "are kept" in caplog.text
    for each in zoo:
        each.state["w"].fill_(float("nan"))
    with pytest.raises(ZooError, match=r"5 of 5 .*nothing is left"):
        settle_weights(zoo, "drop")
    with pytest.raises(ZooError, match="zoo.nan='skip': choose drop, keep, error"):
        settle_weights(zoo, "skip")


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64]
)
def test_every_dtype_is_looked_at(zoo, dtype):
    state = torch.tensor([1.0, float("nan")]).to(dtype)
    zoo.populations["b"].state["w"] = state
    assert settle_weights(zoo, "drop").table["id"].tolist() == list("abcd")


def test_labels_are_treated_alike(zoo):
    zoo.table["label"][3] = np.nan
    assert settle_labels(zoo, "label").table["id"].tolist() == list("abce")
    assert settle_labels(zoo, "architecture") == zoo, "text has no NaN"
    for choice in ("keep", "error"):
        with pytest.raises(ZooError, match=r"1 of 5 .*no finite 'label': d"):
            settle_labels(settle_weights(zoo, choice), "label")


def test_made_zoos_have_the_choice_too():
    for maker in (DigitsClassifiers, MnistSirens):
        assert maker(nan="keep").recipe() == maker().recipe(), "it is the same zoo on disk"
        with pytest.raises(ZooError, match="zoo.nan='skip'"):
            maker(nan="skip")


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        lines = ["path,score"]
        for i, score in enumerate(["0", "nan", "1", "", "inf", "2"]):
            state = networks.mlp((3,)).state_dict()
            if i == 2:
                state["1.bias"][0] = float("nan")
            save_checkpoint(tmp_path / f"{i}.safetensors", state)
            lines.append(f"{i}.safetensors,{score}")
        (tmp_path / "t.csv").write_text("\n".join(lines))
        return tmp_path

    def load(self, folder, **options):
        given = {
            "arch": ARCH,
            "arch_args": {"widths": [3]},
            "input_shape": [1, 8, 8],
            "label": "score",
        }
        return FolderZoo(path=str(folder), table="t.csv", **given, **options).load(progress=False)

    def test_networks_and_rows_are_left_out_by_name(self, folder, caplog):
        with caplog.at_level(logging.WARNING):
            zoo = self.load(folder)
        assert zoo.table["id"].tolist() == ["0.safetensors", "5.safetensors"]
        assert zoo.table["score"].tolist() == [0, 2] and zoo.table["score"].dtype == np.int64, (
            "classes all the same"
        )
        assert (
            "3 of 6 rows" in caplog.text
            and "line 3" in caplog.text
            and "2.safetensors" in caplog.text
        )

    def test_or_kept_or_refused(self, folder):
        zoo = self.load(folder, nan="keep")
        assert len(zoo) == 6 and np.isnan(zoo.table["score"]).sum() == 3 and zoo.nan == "keep"
        with pytest.raises(ZooError, match=r"3 of 6 rows .* 'nan' in line 3 .*zoo.nan=drop"):
            self.load(folder, nan="error")

    def test_nothing_left(self, folder):
        (folder / "t.csv").write_text("path,score\n0.safetensors,nan\n")
        with pytest.raises(ZooError, match="nothing is left"):
            self.load(folder)
