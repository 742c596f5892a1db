"""Zoos on disk: what is written comes back, what is damaged is never used, what is missing is
made."""

import errno
import json
import logging
import os
import threading

import numpy as np
import pytest
import torch

from metanet.zoo import Blueprint, DamagedZooError, ZooError, networks, open_zoo
from metanet.zoo._files import data_root, locked
from metanet.zoo._making import load_or_make, make_chunks, zoo_folder
from metanet.zoo._store import Shard


class Toy:
    """A maker in no time: random networks of two architectures in five shards."""

    name, unit = "toy", "networks"
    widths = {"norm": [4], "deep": [3, 2]}  # noqa: RUF012

    def __init__(self, seed=0):
        self.seed, self.made = seed, []

    def recipe(self):
        return {"zoo": "toy", "seed": self.seed}

    def described(self):
        return {
            name: Blueprint(
                ref="metanet.zoo.networks:mlp",
                arch_args=self.arguments(name),
                input_shape=(1, 8, 8),
            )
            for name in self.widths
        }

    def arguments(self, name):
        return {"widths": self.widths[name], "norm": name == "norm"}

    def chunks(self):
        return [chunk for name in self.widths for chunk in make_chunks(name, 2, [1] * 5)]

    def make(self, chunk, tick):
        self.made.append(chunk.file)
        rows, curves, states = [], [], []
        for index in range(chunk.start, chunk.stop):
            generator = torch.Generator().manual_seed(
                1000 * self.seed + 10 * index + len(chunk.architecture)
            )
            module = networks.mlp(**self.arguments(chunk.architecture))
            states.append(
                {
                    key: torch.randn(value.shape, generator=generator).to(value.dtype)
                    for key, value in module.state_dict().items()
                }
            )
            score = float(torch.rand((), generator=generator, dtype=torch.float64)) / 3
            identity = f"{chunk.architecture}-{index}"
            rows.append(
                {"id": identity, "run": f"run, {index // 2}", "architecture": chunk.architecture}
            )
            rows[-1] |= {"score": score, "index": index}
            curves.append({"loss": [score, score / 7][: 1 + index % 2]})
            tick(1)
        state = {key: torch.stack([each[key] for each in states]) for key in states[0]}
        return Shard(state=state, rows=rows, curves=curves)


@pytest.fixture
def toy(tmp_path):
    return load_or_make(Toy(), str(tmp_path))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_round_trip(toy, tmp_path):
    again = open_zoo(toy.path)
    expected = [Toy().make(chunk, lambda _: None) for chunk in Toy().chunks()]
    rows = [row for shard in expected for row in shard.rows]
    assert len(again) == len(rows) == 10 and again.name == "toy"
    for name, column in again.table.items():
        assert column.tolist() == [
            row[name] for row in rows
        ]  # floats to the last bit, commas survive
    assert again.table["index"].dtype == np.int64 and again.table["score"].dtype == np.float64
    assert again.curves["id"].tolist()[:3] == ["norm-0", "norm-1", "norm-1"]
    assert again.curves["epoch"].tolist()[:3] == [1, 1, 2]
    assert again.curves["loss"].tolist()[:3] == [
        rows[0]["score"],
        rows[1]["score"],
        rows[1]["score"] / 7,
    ]
    for name, population in again.populations.items():
        assert list(population.state) == list(networks.mlp(**Toy().arguments(name)).state_dict())
        for position, row in enumerate(population.rows.tolist()):
            assert again.table["architecture"][row] == name
            chunk = next(
                c for c in Toy().chunks() if c.architecture == name and c.start <= position < c.stop
            )
            made = Toy().make(chunk, lambda _: None)
            for key, tensor in population.state_dict(position).items():
                assert torch.equal(tensor, made.state[key][position - chunk.start])
    assert again.populations["norm"].state["2.num_batches_tracked"].dtype == torch.int64
    assert "toy: 10 networks" in repr(again) and "deep: 5 networks of 233 numbers" in repr(again)


def test_population_builds_its_network(toy):
    population = toy.populations["norm"]
    module = population.build()
    assert not module.training
    module.load_state_dict(population.state_dict(3))
    x = population.example(4)
    assert x.shape == (4, 1, 8, 8) and torch.equal(x, population.example(4))
    assert x.min() >= 0 and x.max() <= 1
    assert module(x).shape == (4, 10)


def test_a_sound_zoo_is_not_made_again(toy, tmp_path):
    maker = Toy()
    before = contents(toy.path)
    load_or_make(maker, str(tmp_path))
    assert maker.made == [] and contents(toy.path) == before


def test_every_recipe_has_its_own_folder(toy, tmp_path):
    other = load_or_make(Toy(seed=1), str(tmp_path))
    assert other.path != toy.path and other.path.name.startswith("toy-")
    assert not torch.equal(
        other.populations["deep"].state["1.weight"], toy.populations["deep"].state["1.weight"]
    )


@pytest.mark.parametrize("file", ["norm-00001.safetensors", "table.csv", "curves.csv", "zoo.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_reported_and_made_again_bit_for_bit(toy, tmp_path, caplog, file, damage):
    before = contents(toy.path)
    path = toy.path / file
    if damage == "remove":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "flip" else data[:-9])
    with pytest.raises(ZooError, match=file):
        open_zoo(toy.path)
    maker = Toy()
    with caplog.at_level(logging.WARNING):
        zoo = load_or_make(maker, str(tmp_path))
    assert maker.made == (
        [file] if file.endswith("safetensors") else []
    )  # tables come from the shards
    assert contents(toy.path) == before
    if (file, damage) != ("zoo.json", "remove"):  # without it the zoo is not damaged but unfinished
        assert f"{file} is damaged" in caplog.text
    assert torch.equal(
        zoo.populations["norm"].state["1.bias"], toy.populations["norm"].state["1.bias"]
    )


@pytest.mark.parametrize(
    "old", ['"widths": [\n     3,', '"seed": 0', '"count": 2', '"score": "float"', '"torch": "']
)
def test_any_change_of_the_manifest_is_noticed(toy, old):
    path = toy.path / "zoo.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, old.translate(str.maketrans("302ft", "413bT")), 1))
    with pytest.raises(DamagedZooError, match=r"zoo\.json"):
        open_zoo(toy.path)


def test_all_damage_is_listed_at_once(toy):
    (toy.path / "table.csv").write_text("id\n")
    (toy.path / "deep-00000.safetensors").unlink()
    with pytest.raises(DamagedZooError) as caught:
        open_zoo(toy.path)
    assert set(caught.value.problems) == {"table.csv", "deep-00000.safetensors"}
    assert str(toy.path) in str(caught.value) and "Nothing of it was used" in str(caught.value)


def test_a_shard_that_comes_out_otherwise_is_said(toy, tmp_path, caplog):
    class Changed(Toy):
        def make(self, chunk, tick):
            shard = super().make(chunk, tick)
            return Shard(
                state={k: v + 1 for k, v in shard.state.items()},
                rows=shard.rows,
                curves=shard.curves,
            )

    (toy.path / "deep-00000.safetensors").unlink()
    zoo = load_or_make(Changed(), str(tmp_path))
    assert "deep-00000.safetensors is not the same as before" in caplog.text
    assert (
        open_zoo(zoo.path).populations["deep"].state["1.bias"][0, 0]
        == toy.populations["deep"].state["1.bias"][0, 0] + 1
    )


def test_a_folder_that_is_no_zoo(tmp_path):
    with pytest.raises(ZooError, match=r"is not a zoo: there is no zoo.json"):
        open_zoo(tmp_path)
    with pytest.raises(ZooError, match="is not a zoo"):
        open_zoo(tmp_path / "missing")


def test_a_later_format(toy, tmp_path):
    manifest = json.loads((toy.path / "zoo.json").read_text())
    (toy.path / "zoo.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ZooError, match=r"has format 99; this metanet reads format 1"):
        load_or_make(Toy(), str(tmp_path))


def test_a_folder_of_another_recipe_is_left_alone(toy, tmp_path):
    other = zoo_folder(Toy(seed=1), str(tmp_path))
    toy.path.rename(other)
    before = contents(other)
    with pytest.raises(ZooError, match="another recipe"):
        load_or_make(Toy(seed=1), str(tmp_path))
    assert contents(other) == before


def test_full_disk(tmp_path, monkeypatch):
    maker, real, written = Toy(), os.fsync, []

    def fsync(handle):
        written.append(handle)
        if len(written) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(torch, "get_num_threads", lambda: 1)
        with pytest.raises(
            ZooError, match=r"disk is full: [\d,]+ bytes were needed for norm-.* in .*toy-"
        ) as caught:
            load_or_make(maker, str(tmp_path))
    folder = zoo_folder(maker, str(tmp_path))
    assert str(folder) in str(caught.value) and "METANET_DATA" in str(caught.value)
    assert not list(folder.glob(".*")), "half-written files were left"
    kept = contents(folder)
    assert "norm-00000.safetensors" in kept and "zoo.json" not in kept
    second = Toy()
    zoo = load_or_make(second, str(tmp_path))
    assert "norm-00000.safetensors" not in second.made and len(zoo) == 10


def test_a_failing_maker_stops_the_others(tmp_path):
    class Failing(Toy):
        def make(self, chunk, tick):
            if chunk.file == "norm-00001.safetensors":
                raise RuntimeError("by design")
            return super().make(chunk, tick)

    with pytest.raises(RuntimeError, match="by design"):
        load_or_make(Failing(), str(tmp_path))
    assert not (zoo_folder(Failing(), str(tmp_path)) / "zoo.json").exists()


def test_waits_for_another_maker(tmp_path):
    maker, result, said, heard = Toy(), [], threading.Event(), logging.Handler()
    heard.emit = lambda record: (
        said.set() if "is being written by another process" in record.getMessage() else None
    )
    thread = threading.Thread(target=lambda: result.append(load_or_make(maker, str(tmp_path))))
    logger = logging.getLogger("metanet.checkpoints._locks")
    logger.addHandler(heard)
    try:
        with locked(zoo_folder(maker, str(tmp_path))):
            thread.start()
            assert said.wait(60)
            assert not result
            assert not maker.made
        thread.join(60)
    finally:
        logger.removeHandler(heard)
    assert len(result[0]) == 10


def test_root(monkeypatch, tmp_path):
    monkeypatch.delenv("METANET_DATA", raising=False)
    assert str(data_root(None)) == "data"
    monkeypatch.setenv("METANET_DATA", str(tmp_path))
    assert data_root(None) == tmp_path
    assert str(data_root("elsewhere")) == "elsewhere"
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="METANET_DATA"):
        load_or_make(Toy(), str(tmp_path / "file"))


def test_chunks_are_even():
    sizes = [c.stop - c.start for c in make_chunks("a", 64, [1] * 223)]
    assert sum(sizes) == 223 and max(sizes) <= 64 and max(sizes) - min(sizes) <= 1
