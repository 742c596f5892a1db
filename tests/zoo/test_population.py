"""Zoos made of states, an architecture and labels."""

import numpy as np
import pytest
import torch

from metanet.zoo import Blueprint, Population, Zoo, ZooError

MLP = Blueprint("metanet.zoo.networks:mlp", {"widths": [3]}, input_shape=(1, 8, 8))


def states(count=3, blueprint=MLP):
    return [blueprint.build().state_dict() for _ in range(count)]


def test_states_one_by_one_or_stacked():
    given = states()
    one = Population.of(given, MLP)
    assert list(one.state) == list(given[0]) and len(one) == 3
    assert torch.equal(one.state["1.weight"][2], given[2]["1.weight"])
    other = Population.of(one.state, MLP)
    assert all(torch.equal(other.state[name], one.state[name]) for name in one.state)
    assert one.blueprint == MLP
    one.build().load_state_dict(one.state_dict(1))


def test_labels_become_the_table():
    wide = Blueprint(MLP.ref, {"widths": [5]}, input_shape=(1, 8, 8), name="wide")
    zoo = Zoo.of(
        "two",
        [
            Population.of(states(2), MLP, {"quality": [0.5, 1], "run": ["x", "x"]}),
            Population.of(
                states(3, wide), wide, {"quality": torch.tensor([1.0, 2, 3]), "run": ["y"] * 3}
            ),
        ],
        unseen=["wide"],
    )
    assert zoo.table["id"].tolist() == [
        "mlp-00000",
        "mlp-00001",
        *(f"wide-0000{i}" for i in range(3)),
    ]
    assert zoo.table["run"].tolist() == ["x", "x", "y", "y", "y"]
    assert zoo.table["architecture"].tolist() == ["mlp"] * 2 + ["wide"] * 3
    assert zoo.table["quality"].tolist() == [0.5, 1, 1, 2, 3]
    assert zoo.populations["wide"].rows.tolist() == [2, 3, 4]
    assert zoo.unseen == ("wide",) and zoo.path is None


def test_without_labels_every_network_is_a_run():
    zoo = Zoo.of("one", Population.of(states(), MLP))
    assert np.array_equal(zoo.table["run"], zoo.table["id"]) and len(set(zoo.table["id"])) == 3


def test_integer_buffers_may_be_missing():
    normed = Blueprint(
        "metanet.zoo.networks:cnn", {"channels": [3], "norm": True}, input_shape=(1, 8, 8)
    )
    given = [dict(state) for state in states(2, normed)]
    counters = [name for name in given[0] if name.endswith("num_batches_tracked")]
    assert counters
    for name in counters:
        del given[1][name]
    assert set(Population.of(given, normed).state) == set(given[1])


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        ([], {}, "mlp: a population of no networks"),
        ({}, {}, "mlp: a population of no networks"),
        ([{"a": torch.zeros(2)}, {}], {}, "mlp: network 1 lacks a, which others have"),
        ([{}, {"a": torch.zeros(2)}], {}, "mlp: network 0 lacks a"),
        ([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}], {},
         r"network 1: a is \(3,\), that of the first network \(2,\)"),
        ({"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)}, {}, "unequal numbers of networks: a 2, b 3"),
        ({"a": torch.zeros(())}, {}, "a is a single number"),
        ({"a": torch.zeros(2, 1)}, {"quality": [1, 2, 3]}, r"label 'quality' is \(3,\).*the 2 networks"),
        ({"a": torch.zeros(2, 1)}, {"quality": 1.0}, r"label 'quality' is \(\)"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together(given, labels, message):
    with pytest.raises(ZooError, match=message):
        Population.of(given, MLP, labels)


def test_zoos_that_can_not_be():
    one = Population.of(states(), MLP, {"quality": [1, 2, 3]})
    with pytest.raises(ZooError, match="the zoo z is made of 0 populations"):
        Zoo.of("z", [])
    with pytest.raises(ZooError, match="made of 2 populations named mlp, mlp"):
        Zoo.of("z", [one, one])
    other = Blueprint(MLP.ref, MLP.arch_args, MLP.input_shape, name="other")
    with pytest.raises(ZooError, match="mlp and other are not known by the same labels: quality"):
        Zoo.of("z", [one, Population.of(states(), other)])
    with pytest.raises(ZooError, match="two networks have the id 'a'"):
        Zoo.of("z", Population.of(states(2), MLP, {"id": ["a", "a"]}))
