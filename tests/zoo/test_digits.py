"""The zoo of digit classifiers, in small."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from metanet.zoo import DigitsClassifiers, ZooError, networks
from metanet.zoo._making import zoo_folder
from metanet.zoo.digits_classifiers import (
    ARCHITECTURES,
    TRAINING_IMAGES,
    _build,
    _digits,
    _initialised,
)

TINY = {
    "networks": 24,
    "epochs": 2,
    "architectures": ("cnn4_gelu", "cnn4_bn_relu", "mlp2_tanh"),
    "chunk": 5,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return DigitsClassifiers(**TINY, root=str(tmp_path_factory.mktemp("data"))).load(progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_table(tiny):
    table = tiny.table
    assert len(tiny) == 24 and {len(p) for p in tiny} == {8}
    assert len(set(table["id"].tolist())) == 24
    assert len(set(table["seed"].tolist())) == 24
    for name, (low, high) in {
        "learning_rate": (1e-3, 3e-2),
        "init_scale": (1, 3),
        "weight_decay": (1e-6, 1e-2),
        "train_fraction": (0.05, 1),
        "label_noise": (0, 0.6),
        "epochs": (1, 2),
        "train_accuracy": (0, 1),
        "test_accuracy": (0, 1),
    }.items():
        assert (table[name] >= low).all() and (table[name] <= high).all()
        assert len(set(table[name].tolist())) > 1
    assert set(table["activation"].tolist()) == {"gelu", "relu", "tanh"}
    assert set(table["depth"].tolist()) == {5, 2}
    for identity in table["id"]:
        row, curve = table["id"] == identity, tiny.curves["id"] == identity
        assert tiny.curves["epoch"][curve].tolist() == list(
            range(1, int(table["epochs"][row][0]) + 1)
        )
        assert tiny.curves["test_accuracy"][curve][-1] == table["test_accuracy"][row][0]
        assert tiny.curves["train_loss"][curve][-1] == table["train_loss"][row][0]


def test_accuracy_in_the_table_is_that_of_the_stored_network(tiny):
    images, labels = _digits()
    assert len(labels) == 1797 and images.min() == 0 and images.max() == 1
    for name, population in tiny.populations.items():
        factory, arguments = ARCHITECTURES[name]
        module = getattr(networks, factory)(**arguments).eval()
        for index, row in enumerate(population.rows.tolist()):
            module.load_state_dict(population.state_dict(index))
            right = module(images[TRAINING_IMAGES:]).argmax(1) == labels[TRAINING_IMAGES:]
            # one digit may sit on the border between two classes
            assert abs(float(right.float().mean()) - tiny.table["test_accuracy"][row]) < 1.01 / len(
                right
            )


def test_training_fits_what_it_was_shown(tmp_path):
    zoo = DigitsClassifiers(
        networks=4,
        epochs=25,
        architectures=("mlp2_tanh", "cnn3_tanh_flatten"),
        learning_rate=(1e-2, 1e-2),
        train_fraction=(0.5, 1.0),
        label_noise=(0.0, 0.0),
        root=str(tmp_path),
    ).load()
    long = zoo.table["epochs"] >= 10
    assert long.any()
    assert zoo.table["test_accuracy"][long].min() > 0.85
    assert (zoo.table["train_accuracy"] >= zoo.table["test_accuracy"] - 0.05).all()


def test_killed_and_resumed_ends_as_undisturbed(tiny, tmp_path):
    # The second shard is being written when the maker is killed; with one thread, the first one is
    # then whole.
    program = f"""
import os, sys, time
import metanet.zoo._files as files
from metanet.zoo import DigitsClassifiers
replace = os.replace
def hang(source, target):
    if str(target).endswith("cnn4_gelu-00001.safetensors"):
        print("writing", flush=True)
        time.sleep(600)
    replace(source, target)
files.os.replace = hang
DigitsClassifiers(**{TINY!r}, root={str(tmp_path)!r}).load(progress=False)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    maker = DigitsClassifiers(**TINY, root=str(tmp_path))
    folder = zoo_folder(maker, maker.root)
    left = {path.name for path in folder.iterdir()}
    assert {"cnn4_gelu-00000.safetensors", "cnn4_gelu-00000.json"} < left and "zoo.json" not in left
    assert any(name.endswith(".tmp") for name in left)
    finished = (folder / "cnn4_gelu-00000.safetensors").stat().st_mtime_ns
    zoo = maker.load(progress=False)
    assert (folder / "cnn4_gelu-00000.safetensors").stat().st_mtime_ns == finished
    assert contents(zoo.path) == contents(tiny.path)


def test_damaged_shard_is_trained_again_to_the_same_bits(tiny, caplog):
    before = contents(tiny.path)
    path = tiny.path / "cnn4_bn_relu-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    DigitsClassifiers(**TINY, root=str(tiny.path.parent)).load(progress=False)
    assert "cnn4_bn_relu-00001.safetensors is damaged" in caplog.text
    assert contents(tiny.path) == before


def test_a_network_depends_on_its_own_seed_alone():
    few, many = DigitsClassifiers(**TINY), DigitsClassifiers(**TINY | {"networks": 48, "chunk": 7})
    assert few._draw("cnn4_gelu", 3) == many._draw("cnn4_gelu", 3) != few._draw("cnn4_gelu", 4)
    assert few._draw("cnn4_gelu", 3) != dataclasses.replace(few, seed=1)._draw("cnn4_gelu", 3)
    state = torch.get_rng_state()
    hyper = few._draw("cnn4_gelu", 3)
    first, second = (_initialised("cnn4_gelu", hyper).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state), (
        "making a zoo must not touch the global generator"
    )


def test_networks_initialised_side_by_side_do_not_mix(monkeypatch):
    maker, real = DigitsClassifiers(), networks.resnet
    drawn = [maker._draw("resnet_bn_relu", index) for index in range(12)]

    def slow(**arguments):
        time.sleep(0.01)  # between seeding and drawing: whoever can come in between does
        return real(**arguments)

    monkeypatch.setattr(networks, "resnet", slow)

    def weights(hyper):
        _build("mlp2_tanh")  # as when another chunk is finished meanwhile
        return _initialised("resnet_bn_relu", hyper)[0].weight

    alone = [weights(hyper) for hyper in drawn]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(weights, drawn))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_zoo_leaves_the_number_of_threads_alone(tiny):
    threads = torch.get_num_threads()
    path = tiny.path / "mlp2_tanh-00000.safetensors"
    path.unlink()
    DigitsClassifiers(**TINY, root=str(tiny.path.parent)).load(progress=False)
    assert path.exists() and torch.get_num_threads() == threads


def test_diverged_networks_are_left_out(tmp_path, caplog):
    zoo = DigitsClassifiers(
        networks=8,
        epochs=1,
        architectures=("mlp3_relu",),
        init_scale=(1.0, 1e38),
        root=str(tmp_path),
    ).load()
    assert 0 < len(zoo) < 8 and "diverged and are left out" in caplog.text
    assert all(
        tensor.isfinite().all() for population in zoo for tensor in population.state.values()
    )
    assert np.isfinite(zoo.table["train_accuracy"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architectures": ["cnn9"]}, "cnn9 not known; choose among resnet_bn_relu"),
        ({"networks": 3}, "3 for 9 architectures"),
        ({"epochs": 0}, "zoo.epochs is 0"),
        ({"learning_rate": [1e-2, 1e-3]}, r"zoo.learning_rate is \[0.01, 0.001\]"),
        ({"label_noise": [0.0, 1.5]}, r"zoo.label_noise is \[0.0, 1.5\]"),
        ({"train_fraction": [0.0, 1.0]}, "zoo.train_fraction"),
    ],
)
def test_mistakes_are_refused_before_anything_is_made(options, message):
    with pytest.raises(ZooError, match=message):
        DigitsClassifiers(**options)


def test_recipe_has_every_field_that_matters():
    base = DigitsClassifiers()
    for field in dataclasses.fields(base):
        if field.name in ("root", "architectures", "nan"):
            continue
        value = getattr(base, field.name)
        other = value + 1 if isinstance(value, int) else (value[0] + 0.01, value[1])
        if field.name == "weight_decay":
            other = (value[0] / 2, value[1])
        changed = dataclasses.replace(base, **{field.name: other})
        assert changed.recipe() != base.recipe(), field.name
    assert math.prod(base.recipe()["learning_rate"]) > 0
