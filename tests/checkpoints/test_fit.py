"""Checkpoint.fit: names brought to those of a network, and what differs in words;
report_nonfinite."""

import pytest
import torch
from torch import nn

from metanet.checkpoints import load_checkpoint, report_nonfinite, save_checkpoint
from metanet.errors import CheckpointError, MetanetError


@pytest.fixture
def opened(tmp_path):
    """Writes tensors and opens them."""

    def opened(state):
        save_checkpoint(tmp_path / "x.safetensors", dict(state))
        return load_checkpoint(tmp_path / "x.safetensors")

    return opened


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict()


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_fits(checkpoint, network, like=None):
    assert list(checkpoint) == list(network)
    for name, tensor in (like or network).items():
        assert torch.equal(checkpoint[name], tensor), name


class TestNames:
    def test_the_networks_order_and_names(self, opened, network):
        backwards = dict(reversed(network.items()))
        assert_fits(opened(backwards).fit(network), network)

    @pytest.mark.parametrize("prefix", ["model.", "net.encoder.", "0.", "module."])
    def test_a_prefix_is_taken_off(self, prefix, opened, network):
        checkpoint = opened({**prefixed(network, prefix), "criterion.weight": torch.ones(2)})
        fitting = checkpoint.fit(network)
        assert_fits(fitting, network)
        assert fitting.skipped == ("criterion.weight",)

    def test_a_prefix_is_put_on(self, opened, network):
        assert_fits(opened(network).fit(prefixed(network, "bert.")), prefixed(network, "bert."))

    def test_a_base_models_checkpoint_lacks_the_head(self, opened, network):
        with pytest.raises(CheckpointError, match=r"missing     head.weight \(2, 2\)$"):
            opened(network).fit({**prefixed(network, "bert."), "head.weight": torch.ones(2, 2)})

    def test_names_that_fit_are_left_although_some_fit_deeper(self, opened):
        state = {"weight": torch.ones(2), "bias": torch.ones(2), "weight.weight": torch.zeros(2)}
        assert_fits(opened(state).fit(state), state)

    def test_two_networks_of_one_architecture_are_told_apart_by_the_caller(self, opened, network):
        state = {
            **prefixed(network, "student."),
            **prefixed({k: v + 1 for k, v in network.items()}, "teacher."),
        }
        checkpoint = opened(state)
        with pytest.raises(
            CheckpointError,
            match="several ways: without student. or without teacher.; name the prefix",
        ):
            checkpoint.fit(network)
        fitting = checkpoint.fit(network, prefix="teacher.")
        assert torch.equal(fitting["0.bias"], network["0.bias"] + 1)
        assert set(fitting.skipped) == set(prefixed(network, "student."))
        with pytest.raises(
            CheckpointError, match="no name starts with 'teach.', but student., teacher."
        ):
            checkpoint.fit(network, prefix="teach.")

    def test_a_layer_among_many_like_it(self, opened):
        layer = nn.Linear(2, 2).state_dict()
        state = {f"{i}.{name}": tensor for i in range(14) for name, tensor in layer.items()}
        with pytest.raises(
            CheckpointError, match="without 0. or .* or without 9. and 4 more; name the prefix"
        ):
            opened(state).fit(layer)
        assert_fits(opened(state).fit(layer, prefix="7."), layer)

    def test_a_few_names_that_end_alike_make_no_prefix(self, opened, network):
        state = {"other.0.bias": torch.ones(4), "q": torch.ones(1), "r": torch.ones(1)}
        with pytest.raises(CheckpointError, match=r"unexpected  other.0.bias \(4,\)"):
            opened(state).fit(network)
        with pytest.raises(CheckpointError, match=r"missing     0.bias \(4,\); near: other.0.bias"):
            opened(state).fit(network, prefix="")

    def test_names_that_are_tied_stand_for_each_other(self, opened):
        network = {"embed.weight": torch.randn(5, 2), "body": torch.randn(2)}
        network["head.weight"] = network["embed.weight"]
        tied = {"head.weight": "embed.weight"}
        for kept in ("embed.weight", "head.weight"):
            checkpoint = opened({kept: network[kept], "body": network["body"]})
            assert_fits(checkpoint.fit(network, tied=tied), network)
            with pytest.raises(CheckpointError, match="missing"):
                checkpoint.fit(network)

    def test_fitted_names_are_read_lazily(self, opened, network, monkeypatch):
        checkpoint = opened(prefixed(network, "model."))
        read = []
        monkeypatch.setattr(checkpoint, "_read", lambda name: read.append(name) or torch.zeros(4))
        fitting = checkpoint.fit(network)
        assert read == []
        fitting["0.bias"]
        assert read == ["model.0.bias"]

    @pytest.mark.untyped
    def test_what_can_be_expected(self, opened, network):
        checkpoint = opened(network)
        shapes = {name: tuple(tensor.shape) for name, tensor in network.items()}
        meta = {name: tensor.to("meta") for name, tensor in network.items()}
        for expected in (network, shapes, meta, checkpoint):
            assert_fits(checkpoint.fit(expected), network)
        with pytest.raises(MetanetError, match="such as model.state_dict"):
            checkpoint.fit(nn.Linear(1, 1))

    def test_renaming_never_loses_a_tensor(self, opened):
        checkpoint = opened({"a": torch.zeros(1), "b": torch.ones(1)})
        assert checkpoint.rename({"a": "b", "b": "a"})["a"] == 1
        with pytest.raises(CheckpointError, match="two tensors would have one name"):
            checkpoint.rename({"a": "c", "b": "c"})


class TestDifferences:
    def test_all_are_listed_at_once(self, opened):
        network = {
            "a": torch.ones(2),
            "b": torch.ones(2),
            "steps": torch.tensor(1),
            "layer.weight": torch.ones(3, 2),
        }
        checkpoint = opened(
            {
                "a": torch.ones(3),
                "b": torch.ones(2).long(),
                "c": torch.ones(1),
                "steps": torch.ones(()),
            }
        )
        with pytest.raises(CheckpointError) as caught:
            checkpoint.fit(network)
        assert (
            str(caught.value).splitlines()[0].endswith("x.safetensors' does not fit the network:")
        )
        assert str(caught.value).splitlines()[1:] == [
            "  missing     layer.weight (3, 2)",
            "  unexpected  c (1,)",
            "  shape       a is (3,), expected (2,)",
            "  dtype       b is torch.int64, expected torch.float32",
            "  dtype       steps is torch.float32, expected torch.int64",
        ]

    def test_ten_of_a_kind_and_a_count(self, opened):
        network = {f"layers.{i}.weight": torch.ones(2) for i in range(25)}
        checkpoint = opened(
            {**{f"layers.{i}.weight": torch.ones(3) for i in range(12)}, "x": torch.ones(1)}
        )
        with pytest.raises(CheckpointError) as caught:
            checkpoint.fit(network)
        lines = str(caught.value).splitlines()
        assert sum(line.startswith("  missing") for line in lines) == 10
        assert sum(line.startswith("  shape") for line in lines) == 10
        assert "  ... and 3 more missing" in lines
        assert "  ... and 2 more of other shapes" in lines

    def test_a_name_that_may_be_meant_is_shown(self, opened):
        network = {"encoder.layer.0.weight": torch.ones(3, 2), "norm": torch.ones(1)}
        checkpoint = opened(
            {
                "encoder.layers.0.weight": torch.ones(3, 2),
                "encoder.layer.0.weights": torch.ones(9),
                "norm": torch.ones(1),
            }
        )
        with pytest.raises(
            CheckpointError, match=r"0.weight \(3, 2\); near: encoder.layers.0.weight \(3, 2\)\n"
        ):
            checkpoint.fit(network)

    def test_another_network_is_said_to_be_one(self, opened, network):
        with pytest.raises(
            CheckpointError, match="no name is the network's: is this the architecture"
        ):
            opened({"q": torch.ones(1)}).fit(network)

    @pytest.mark.untyped
    def test_what_is_not_expected_can_be_dropped(self, opened, network):
        fitting = opened({**network, "x": torch.ones(1)}).fit(network, extra="drop")
        assert_fits(fitting, network)
        assert fitting.skipped == ("x",)
        with pytest.raises(MetanetError, match="extra='keep': give one of refuse, drop"):
            opened(network).fit(network, extra="keep")

    @pytest.mark.untyped
    def test_dtypes_agree_by_kind_exactly_or_not_at_all(self, opened, network):
        half = {name: t.bfloat16() if t.is_floating_point() else t for name, t in network.items()}
        assert opened(half).fit(network)["0.bias"].dtype is torch.bfloat16
        with pytest.raises(
            CheckpointError, match="0.bias is torch.bfloat16, expected torch.float32"
        ):
            opened(half).fit(network, dtypes="exact")
        floats = {name: tensor.double() for name, tensor in network.items()}
        with pytest.raises(
            CheckpointError, match="1.num_batches_tracked is torch.float64, expected torch.int64"
        ):
            opened(floats).fit(network)
        assert (
            opened(floats).fit(network, dtypes="any")["1.num_batches_tracked"].dtype
            is torch.float64
        )
        with pytest.raises(MetanetError, match="dtypes='some': give one of kind, exact, any"):
            opened(network).fit(network, dtypes="some")

    @pytest.mark.parametrize("other", [torch.bool, torch.int64, torch.complex64, torch.uint8])
    def test_kinds_are_told_apart(self, other, opened):
        with pytest.raises(CheckpointError, match=f"w is {other}, expected torch.float8_e5m2"):
            opened({"w": torch.zeros(2, dtype=other)}).fit(
                {"w": torch.zeros(2, dtype=torch.float8_e5m2)}
            )


class TestNonfinite:
    def test_counts_by_name(self, opened):
        inf, nan = float("inf"), float("nan")
        state = {
            "float32": torch.tensor([1, nan, inf, -inf]),
            "bfloat16": torch.tensor([nan, 0], dtype=torch.bfloat16),
            "float8_e5m2": torch.tensor([inf, nan, 1.0]).to(torch.float8_e5m2),
            "float8_e4m3fn": torch.tensor([0x7F, 0xFF, 0x00, 0x7E], dtype=torch.uint8).view(
                torch.float8_e4m3fn
            ),
            "complex": torch.tensor([complex(0, nan), 1j]),
            "fine": torch.ones(3),
            "integer": torch.arange(3),
            "bool": torch.tensor([True]),
            "empty": torch.empty(0),
        }
        counts = {"float32": 3, "bfloat16": 1, "float8_e5m2": 2, "float8_e4m3fn": 2, "complex": 1}
        assert report_nonfinite(state) == counts
        assert report_nonfinite(opened(state)) == counts
