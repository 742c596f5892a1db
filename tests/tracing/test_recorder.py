"""The recording says what happened, leaves the caller's model alone, and can be run again."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from metanet.errors import TraceError
from metanet.tracing import record
from networks import ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_replay_computes_what_the_model_computes(name):
    make, example = ARCHITECTURES[name]
    model, x = make().eval().double(), example().double()
    trace = record(model, (x,), {})
    other = torch.rand(x.shape, dtype=torch.float64)
    kept = other.clone()
    got = trace.replay(model.state_dict(), other)[trace.outputs[0]]
    torch.testing.assert_close(got, model(other), rtol=1e-12, atol=1e-12)
    assert torch.equal(other, kept), "replaying wrote into the inputs"


def test_replay_under_vmap_runs_many_networks_at_once():
    make, example = ARCHITECTURES["siren"]
    models, x = [make().double() for _ in range(3)], example().double()
    trace = record(models[0], (x,), {})
    stacked = {k: torch.stack([m.state_dict()[k] for m in models]) for k in models[0].state_dict()}
    got = torch.func.vmap(lambda sd: trace.replay(sd, x)[trace.outputs[0]])(stacked)
    torch.testing.assert_close(got, torch.stack([m(x) for m in models]), rtol=1e-10, atol=1e-10)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    record(model, (torch.randn(2, 3),), {})
    assert model.training and model[2].training
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Wasteful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)  # computed, never returned
        return self.used(x)


def test_dead_operations_are_removed():
    trace = record(Wasteful(), (torch.randn(2, 3),), {})
    read = {n for op in trace.ops for n in op.inputs()}
    assert trace.parameters["used.weight"] in read
    assert trace.parameters["unused.weight"] not in read


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        view = x[:, :2]
        x.mul_(2)
        view.add_(1)  # writes into x through a view
        return self.b(x)


def test_a_write_through_a_view_reaches_what_it_looks_into():
    trace = record(InPlace(), (torch.randn(2, 4),), {})
    assert "metanet.write_through_view" in [op.name for op in trace.ops]
    assert "aten.mul" in [op.name for op in trace.ops]  # in place, under its functional name


def test_tied_parameters_are_one_value_with_all_names():
    make, example = ARCHITECTURES["tied"]
    trace = record(make(), (example(),), {})
    assert trace.parameters["a.weight"] == trace.parameters["b.weight"]
    assert trace.values[trace.parameters["a.weight"]].names == ("a.weight", "b.weight")


@dataclass
class Output:
    first: Tensor
    nested: dict


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, x: Tensor, *, scale: dict) -> Output:
        return Output(self.layer(x), {"more": [scale["by"] * x]})


def test_nested_inputs_and_outputs():
    trace = record(Nested(), (torch.randn(2, 3),), {"scale": {"by": torch.ones(2, 1)}})
    assert [trace.values[v].shape for v in trace.outputs] == [(2, 5), (2, 3)]
    assert [trace.values[v].shape for v in trace.inputs] == [(2, 3), (2, 1)]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum().item() > -1e9 else x


def test_control_flow_on_data_is_reported():
    assert any("only the path taken" in w for w in record(Branching(), (torch.randn(2, 3),), {}).warnings)


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(3, 3), (), "needs example inputs"),
        (Raises(), (torch.randn(2, 4),), r"raised RuntimeError \(in 'inner'\)"),
        (nn.Linear(3, 3, device="meta"), (torch.randn(2, 3),), "weight is on the meta device"),
    ],
)
def test_bad_input_is_explained(model, inputs, message):
    with pytest.raises(TraceError, match=message):
        record(model, inputs, {})


def test_an_output_without_a_tensor_is_refused():
    class Says(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "no tensor"

    with pytest.raises(TraceError, match="returned str without a tensor"):
        record(Says(), (torch.randn(2, 3),), {})
