"""Checkpoints that are made of others, tensor by tensor."""

import pickle
from pathlib import Path

import pytest
import torch

from metanet.checkpoints import Checkpoint


class Ramp:
    """Reads 0, 1, 2, ... and remembers what was read."""

    def __init__(self):
        self.read = []

    def __call__(self, name):
        self.read.append(name)
        return torch.arange(3.0)


@pytest.fixture
def ramp():
    return Ramp()


@pytest.fixture
def stored(ramp):
    names = ("a", "b", "c")
    shapes = dict.fromkeys(names, torch.Size([3]))
    dtypes = dict.fromkeys(names, torch.float32)
    tied = {"a": "a", "b": "a"}
    return Checkpoint(Path("ramps"), ramp, shapes, dtypes, {"step": 3}, ["d"], ["x.Y"], tied)


def doubled(name, tensor):
    return tensor * 2 if name != "c" else tensor


def test_tensors_are_changed_when_they_are_asked_for(stored, ramp):
    made = stored.mapped(doubled)
    assert list(made) == ["a", "b", "c"] and ramp.read == []
    assert made["a"].tolist() == [0, 2, 4] and made["c"].tolist() == [0, 1, 2]
    assert ramp.read == ["a", "c"]


def test_what_is_known_of_the_file_stays_known(stored):
    made = stored.mapped(doubled)
    assert (made.path, made.metadata) == (stored.path, stored.metadata)
    assert (made.skipped, made.foreign) == (stored.skipped, stored.foreign)
    assert made.shapes == stored.shapes and made.dtypes == stored.dtypes
    assert made.tied == {}  # a change may tell them apart
    assert made.sources == {name: name for name in made}


def test_names_shapes_and_dtypes_may_change(stored, ramp):
    made = stored.mapped(
        lambda name, tensor: tensor[:2].double(),
        {"new": "b"},
        shapes={"new": torch.Size([2])},
        dtypes={"new": torch.float64},
    )
    assert dict(made.shapes) == {"new": (2,)} and made["new"].dtype is made.dtypes["new"]
    assert ramp.read == ["b"]


def test_one_after_the_other(stored, ramp):
    made = stored.rename({"a": "x", "b": "y", "c": "c"}).mapped(doubled).mapped(doubled)
    assert made["x"].tolist() == [0, 4, 8] and ramp.read == ["a"]


def test_goes_to_other_processes(stored):
    made = pickle.loads(pickle.dumps(stored.mapped(doubled)))
    assert made["a"].tolist() == [0, 2, 4]


def test_some_under_other_names(stored):
    some = stored.select({"second": "b", "first": "a"})
    assert list(some) == ["second", "first"] and some.sources == {"second": "b", "first": "a"}
    assert some.tied == {"second": "second", "first": "second"}
    assert some.metadata == {"step": 3}
