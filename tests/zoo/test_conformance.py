"""What every registered zoo must do; a new one, a plugin's too, is picked up by itself.

A zoo is made with its defaults, unless ``SMALL`` has something faster.
"""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from metanet.checkpoints import save_checkpoint
from metanet.config import build
from metanet.errors import MetanetError
from metanet.tasks._data import split_runs
from metanet.zoo import ZOOS, FolderZoo, Zoo, networks

SMALL = {
    "digits_classifiers": {"networks": 6, "epochs": 1, "architectures": ["cnn3_relu", "mlp2_tanh"]},
    "mnist_sirens": {"images": 10, "size": 14, "hidden": [4], "fits": 2, "steps": 2},
}
FRONT = {"id", "run", "architecture"}


def folder_zoo(root):
    """Six checkpoints with a label each."""
    lines = ["path,quality"]
    for number in range(6):
        torch.manual_seed(number)
        save_checkpoint(root / f"{number}.safetensors", networks.mlp([3]).state_dict())
        lines.append(f"{number}.safetensors,{number / 6}")
    (root / "table.csv").write_text("\n".join(lines))
    own = {"arch": "metanet.zoo.networks:mlp", "arch_args": {"widths": [3]}}
    return FolderZoo(
        path=str(root), table="table.csv", label="quality", input_shape=[1, 8, 8], **own
    )


def takes(source, name):
    return name in {field.name for field in fields(source)}


@pytest.fixture(scope="module", params=sorted(ZOOS))
def source(request, tmp_path_factory):
    """The source of a zoo, in a folder of its own."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "folder":
        return folder_zoo(root)
    made = ZOOS[request.param](**SMALL.get(request.param, {}))
    return replace(made, root=str(root)) if takes(made, "root") else made


@pytest.fixture(scope="module")
def zoo(source) -> Zoo:
    return source.load(progress=False)


def test_the_table_has_a_row_for_each_network(zoo):
    assert zoo.table.keys() >= FRONT
    assert {len(column) for column in zoo.table.values()} == {len(zoo)}
    assert len(set(zoo.table["id"])) == len(zoo)
    rows = torch.cat([population.rows for population in zoo])
    assert sorted(rows.tolist()) == list(range(len(zoo)))
    for name, population in zoo.populations.items():
        assert population.architecture == name and len(population) > 0
        assert set(np.asarray(zoo.table["architecture"])[population.rows.numpy()]) == {name}
    assert set(zoo.unseen) <= zoo.populations.keys()


def test_there_is_something_to_learn(zoo):
    """A column of finite numbers that differ from network to network."""
    columns = [np.asarray(zoo.table[name]) for name in zoo.table.keys() - FRONT]
    numbers = [column for column in columns if np.issubdtype(column.dtype, np.number)]
    assert any(np.isfinite(column).all() and len(set(column)) > 1 for column in numbers)


def test_a_rows_checkpoint_is_one_of_the_network_that_the_population_names(zoo):
    for population in zoo:
        network = population.build()
        assert list(population.state) == list(network.state_dict())
        for index in (0, len(population) - 1):
            network.load_state_dict(population.state_dict(index))
        inputs = population.example(3)
        assert inputs.shape == (3, *population.input_shape)
        answers = network(inputs)
        assert len(answers) == 3 and answers.isfinite().all()


def test_networks_differ(zoo):
    for population in zoo:
        if len(population) > 1:
            weights = (t for t in population.state.values() if t.is_floating_point())
            assert any(not torch.equal(tensor[0], tensor[1]) for tensor in weights)


def test_the_same_arguments_give_the_same_bits(source, zoo, tmp_path):
    again = replace(source, root=str(tmp_path)) if takes(source, "root") else source
    assert same(again.load(progress=False), zoo)


def test_another_seed_gives_other_networks(source, zoo, tmp_path):
    if not takes(source, "seed"):
        pytest.skip("it draws nothing")
    assert not same(replace(source, seed=source.seed + 1).load(progress=False), zoo)


def same(one: Zoo, other: Zoo) -> bool:
    states = [[p.state for p in zoo] for zoo in (one, other)]
    return (
        one.populations.keys() == other.populations.keys()
        and all(np.array_equal(one.table[name], other.table[name]) for name in one.table)
        and all(torch.equal(a[k], b[k]) for a, b in zip(*states, strict=True) for k in a)
    )


def test_splits_are_disjoint_and_cut_through_no_run(zoo):
    splits = split_runs(zoo, fractions={"val": 0.3, "test": 0.3}, unseen=(), seed=0)
    rows = torch.cat(list(splits.values())).tolist()
    assert sorted(rows) == list(range(len(zoo)))
    runs = [set(np.asarray(zoo.table["run"])[part.numpy()]) for part in splits.values()]
    assert sum(map(len, runs)) == len(set.union(*runs))
    again = split_runs(zoo, fractions={"val": 0.3, "test": 0.3}, unseen=(), seed=0)
    assert all(torch.equal(splits[name], again[name]) for name in splits)


def test_it_can_be_sent_to_another_process(zoo):
    assert same(pickle.loads(pickle.dumps(zoo)), zoo)


def test_it_says_what_it_is(zoo):
    assert zoo.name in repr(zoo) and len(repr(zoo)) < 500 * (1 + len(zoo.populations))


def test_a_mistyped_argument_is_refused(source):
    cls = type(source)
    with pytest.raises(MetanetError, match="networkz"):
        build({"_target_": f"{cls.__module__}.{cls.__qualname__}", "networkz": 3})
